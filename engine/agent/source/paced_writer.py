"""Writing payload: gathered into frames, and held back to a rate if one is set."""

from __future__ import annotations

import select
import time

from engine.agent.typed import TYPE_CHECKING
from engine.agent.wire import DATA, HEADER, MAX_DATA, EndOfStream, encode, write_all

if TYPE_CHECKING:
    from typing import Any, Callable

#: Bytes to gather before they are sent.
CHUNK = 1 << 20
#: Seconds of its rate that a sender may catch up after too long a sleep; the longest sleep.
CREDIT_SECONDS, NAP_SECONDS = 0.05, 0.5
_CLOSED = select.POLLHUP | select.POLLERR | select.POLLNVAL


class FrameWriter:
    """Writes a sender's frames to a descriptor.

    Calls `on_write` with all payload, in the order in which it leaves. With a `rate` (bytes per
    second, 0 for none) payload waits its turn.
    """

    def __init__(self, fd: int, control: int) -> None:
        self._fd = fd
        #: True while a write waits for the receiver to take bytes.
        self.waits = False
        self._pieces: list[Any] = []
        self._size = 0
        self._control = select.poll()
        # Not POLLIN: commands may wait there while this agent is busy.
        self._control.register(control, 0)
        self._commands = select.poll()
        self._commands.register(control, select.POLLIN)
        self._due = 0.0
        self.rate = 0
        #: Called if a command comes while payload waits its turn: it may set another rate.
        self.listen: Callable[[], None] | None = None
        self.on_write: Callable[[Any], None] | None = None
        #: True to change the next byte, after `on_write`: a fault that a test injects.
        self.corrupt_next_byte = False

    def write(self, piece: Any) -> None:
        """Queue a piece; sends a long one before it returns, so that its buffer is free again."""
        size = len(piece)
        if size >= CHUNK // 4:
            self.flush()
            for at in range(0, size, MAX_DATA):
                part = memoryview(piece)[at : at + MAX_DATA]
                self._send([part], len(part))
        elif size:
            # A view is of a buffer that will be filled again.
            self._pieces.append(bytes(piece) if isinstance(piece, memoryview) else piece)
            self._size += size
            if self._size >= CHUNK:
                self.flush()

    def flush(self) -> None:
        """Send the queue as one frame."""
        if self._size:
            pieces, size = self._pieces, self._size
            self._pieces, self._size = [], 0
            self._send(pieces, size)

    def frame(self, kind: bytes, body: dict[str, Any], blob: bytes = b"") -> None:
        """Send a message after the queue."""
        self.flush()
        self._write([encode(kind, body, blob)])

    def pass_on(self, frame: bytes) -> None:
        """Send a finished frame after the queue."""
        self.flush()
        self._write([frame])

    def _send(self, pieces: list[Any], size: int) -> None:
        if self.on_write:
            for piece in pieces:
                self.on_write(piece)
        if self.corrupt_next_byte:
            self.corrupt_next_byte, first = False, pieces[0]
            pieces[0] = bytes([first[0] ^ 1]) + bytes(first[1:])
        if self.rate:
            self._wait(size)
        if any(event & _CLOSED for _, event in self._control.poll(0)):
            raise EndOfStream
        self._write([HEADER.pack(DATA, size), *pieces])

    def _wait(self, size: int) -> None:
        """Sleep until the rate allows `size` more bytes; in short sleeps, in case the worker left.

        Saves up hardly any unused time: senders that share a rate would spend it all at once.
        """
        now = time.monotonic()
        self._due = max(self._due, now - CREDIT_SECONDS) + size / self.rate
        while self._due > now and self.rate:
            before = self.rate
            if self._commands.poll(min(self._due - now, NAP_SECONDS) * 1000):
                if self._control.poll(0):
                    raise EndOfStream
                if self.listen:
                    self.listen()
            now = time.monotonic()
            if self.rate and self.rate != before:  # The rest of the wait is at the new rate.
                self._due = now + max(0.0, self._due - now) * before / self.rate

    def _write(self, pieces: list[Any]) -> None:
        self.waits = True
        try:
            write_all(self._fd, *pieces)
        except BrokenPipeError:
            # The receiver has ended. It, or its connection, reports why; no entry is to blame.
            raise EndOfStream from None
        self.waits = False

"""Payload on its way out: gathered into frames, and held back to a rate where one is asked for."""

from __future__ import annotations

import select
import time
from typing import Any, Callable

from engine.agent.wire import DATA, HEADER, MAX_DATA, EndOfStream, encode, write_all

#: Bytes that are gathered before they are sent.
CHUNK = 1 << 20
#: Seconds of the rate that a sender may catch up after it slept too long, and the longest sleep.
CREDIT_SECONDS, NAP_SECONDS = 0.05, 0.5
_HUNG_UP = select.POLLHUP | select.POLLERR | select.POLLNVAL


class Outlet:
    """The way out of a sender.

    `taste` is shown all payload, in the order in which it leaves. With `rate`
    (bytes per second, 0 for none) payload waits its turn.
    """

    def __init__(self, fd: int, control: int) -> None:
        self._fd = fd
        self._pieces: list[Any] = []
        self._size = 0
        self._control = select.poll()
        # Not POLLIN: further commands may wait there while we are at work.
        self._control.register(control, 0)
        self._orders = select.poll()
        self._orders.register(control, select.POLLIN)
        self._due = 0.0
        self.rate = 0
        #: Called when a command has come while payload waits its turn: it may be another rate.
        self.listen: Callable[[], None] | None = None
        self.taste: Callable[[Any], None] | None = None
        #: Damage the next byte that leaves, after it was shown: a drill.
        self.spoil = False

    def write(self, piece: Any) -> None:
        """Queue a piece; a long one is sent before this returns, so its buffer is free again."""
        size = len(piece)
        if size >= CHUNK // 4:
            self.flush()
            for at in range(0, size, MAX_DATA):
                part = memoryview(piece)[at : at + MAX_DATA]
                self._send([part], len(part))
        elif size:
            # Views are of buffers that will be filled anew.
            self._pieces.append(bytes(piece) if isinstance(piece, memoryview) else piece)
            self._size += size
            if self._size >= CHUNK:
                self.flush()

    def flush(self) -> None:
        """Send what is queued as one frame."""
        if self._size:
            pieces, size = self._pieces, self._size
            self._pieces, self._size = [], 0
            self._send(pieces, size)

    def frame(self, kind: bytes, body: dict[str, Any], blob: bytes = b"") -> None:
        """Send a message after what is queued."""
        self.flush()
        self._write([encode(kind, body, blob)])

    def pass_on(self, frame: bytes) -> None:
        """Send a frame that somebody else has made, after what is queued."""
        self.flush()
        self._write([frame])

    def _send(self, pieces: list[Any], size: int) -> None:
        if self.taste:
            for piece in pieces:
                self.taste(piece)
        if self.spoil:
            self.spoil, first = False, pieces[0]
            pieces[0] = bytes([first[0] ^ 1]) + bytes(first[1:])
        if self.rate:
            self._wait(size)
        if any(event & _HUNG_UP for _, event in self._control.poll(0)):
            raise EndOfStream
        self._write([HEADER.pack(DATA, size), *pieces])

    def _wait(self, size: int) -> None:
        """Sleep until so many bytes have earned their way out; in naps, in case the worker left.

        Hardly anything is saved up: senders that share a rate would spend it all at once.
        """
        now = time.monotonic()
        self._due = max(self._due, now - CREDIT_SECONDS) + size / self.rate
        while self._due > now and self.rate:
            before = self.rate
            if self._orders.poll(min(self._due - now, NAP_SECONDS) * 1000):
                if self._control.poll(0):
                    raise EndOfStream
                if self.listen:
                    self.listen()
            now = time.monotonic()
            if self.rate and self.rate != before:  # What is left to wait for goes at the new rate.
                self._due = now + max(0.0, self._due - now) * before / self.rate

    def _write(self, pieces: list[Any]) -> None:
        try:
            write_all(self._fd, *pieces)
        except BrokenPipeError:
            # The receiver is gone: why, it or its connection tells; no entry is to blame.
            raise EndOfStream from None

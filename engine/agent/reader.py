"""What comes in at an agent: frames, and the payload of a parcel inside them."""

from __future__ import annotations

import os
from typing import Any

from engine.agent.wire import (
    DATA,
    END_ENTRY,
    END_PARCEL,
    HEADER,
    MARK,
    MAX_HEAD,
    AgentError,
    EndOfStream,
    check_header,
    decode,
)

#: Bytes that are asked for at once: they should still be in the processor's cache when written.
_READ = 512 << 10
#: Bytes that can be looked at in one piece.
_ROOM = 5 << 20
_NOTHING = memoryview(b"")


class Inlet:
    """A buffer over a descriptor, read as it comes.

    A view it gives out is good until the next call.
    """

    def __init__(self, fd: int) -> None:
        self._fd = fd
        self._buffer = memoryview(bytearray(_ROOM))
        self._start = self._end = 0

    def header(self) -> tuple[bytes, int]:
        """The next frame's type and length, checked against the limits."""
        return check_header(*HEADER.unpack(self.view(HEADER.size)))

    def frame(self) -> tuple[bytes, bytes]:
        """The next frame's type and body."""
        kind, size = self.header()
        return kind, self.exactly(size)

    def exactly(self, size: int) -> bytes:
        """That many bytes, however many they are; EndOfStream if they do not come."""
        pieces = []
        while size:
            part = self.some(size)
            pieces.append(bytes(part))
            size -= len(part)
        return b"".join(pieces)

    def some(self, most: int) -> memoryview:
        """Between 1 and `most` bytes, as soon as there are any."""
        if self._start == self._end:
            self._start, self._end = 0, self._fill(0, _READ)
        first, self._start = self._start, min(self._start + most, self._end)
        return self._buffer[first : self._start]

    def view(self, size: int) -> memoryview:
        """That many bytes (at most _ROOM) in one piece."""
        if self._end - self._start < size:
            left = self._end - self._start
            self._buffer[:left] = bytes(self._buffer[self._start : self._end])
            self._start, self._end = 0, left
            while self._end < size:
                self._end += self._fill(self._end, max(_READ, size - self._end))
        first, self._start = self._start, self._start + size
        return self._buffer[first : self._start]

    def _fill(self, at: int, most: int) -> int:
        got = os.readv(self._fd, [self._buffer[at : at + most]])
        if not got:
            raise EndOfStream
        return got


class Payload:
    """The payload of one parcel as it comes in, frame by frame.

    `ended` is the message of a frame that is no data, until `step` takes it:
    a mark, the end of an entry, or the end of the parcel; `kind` says which.
    """

    def __init__(self, inlet: Inlet) -> None:
        self._inlet = inlet
        self._left = 0
        self.kind = b""
        self.ended: dict[str, Any] | None = None

    def some(self, most: int) -> memoryview:
        """Between 1 and `most` bytes of payload; none when another kind of frame came."""
        while not self._left:
            if not self._next():
                return _NOTHING
        part = self._inlet.some(min(most, self._left))
        self._left -= len(part)
        return part

    def exactly(self, size: int) -> Any:
        """That many bytes of payload; in one piece, and good until the next call."""
        if size <= self._left:
            self._left -= size
            return self._inlet.view(size)
        pieces = []
        while size:
            piece = self.some(size)
            if not piece:
                raise AgentError("BAD_ARCHIVE", "the payload ends too early")
            pieces.append(bytes(piece))
            size -= len(piece)
        return b"".join(pieces)

    def step(self, most: int = 0) -> dict[str, Any]:
        """The message of the next frame that is no data, with at most so much payload before it."""
        while self.ended is None:
            most -= len(self.some(max(most, 0) + 1))
            if most < 0 and self.ended is None:
                raise AgentError("BAD_ARCHIVE", "more payload came than was announced")
        message, self.ended = self.ended, None
        return message

    def _next(self) -> bool:
        """Go to the next frame; False if it is no data."""
        if self.ended is None:
            self.kind, size = self._inlet.header()
            if self.kind == DATA:
                self._left = size
                return True
            if self.kind not in (MARK, END_ENTRY, END_PARCEL):
                raise AgentError("AGENT_FAILED", "a command came in the middle of a parcel")
            self.ended = decode(self._inlet.exactly(size), MAX_HEAD)
        return False

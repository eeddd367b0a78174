"""Reading frames as they come in at an agent, and the payload of a parcel inside them."""

from __future__ import annotations

import os
import select

from engine.agent.typed import TYPE_CHECKING
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
    first_piece,
)

if TYPE_CHECKING:
    from typing import Any

#: Bytes per read: few enough to be in the processor's cache still when they are written.
_READ = 512 << 10
#: The most bytes that `view` gives in one piece.
_ROOM = 5 << 20
_NOTHING = memoryview(b"")


class FrameReader:
    """A buffer over a descriptor.

    A view that it returns is valid until the next call.
    """

    def __init__(self, fd: int) -> None:
        self._fd = fd
        #: True while a read waits for bytes.
        self.waits = False
        #: What has come of a stream that others write to, too; None for any other stream.
        self._shared: bytearray | None = None
        self._buffer = memoryview(bytearray(_ROOM))
        self._start = self._end = 0

    def has_input(self) -> bool:
        """True if a read would not wait: bytes are there, or the stream has ended."""
        return self._start < self._end or bool(select.select([self._fd], [], [], 0)[0])

    def header(self) -> tuple[bytes, int]:
        """Read the next frame's type and length; raises AGENT_FAILED if they exceed the limits."""
        return check_header(*HEADER.unpack(self.view(HEADER.size)))

    def frame(self) -> tuple[bytes, bytes]:
        """Read the next frame's type and body."""
        kind, size = self.header()
        return kind, self.exactly(size)

    def exactly(self, size: int) -> bytes:
        """Read `size` bytes, of any number; raises EndOfStream if the stream ends before."""
        pieces = []
        while size:
            part = self.some(size)
            pieces.append(bytes(part))
            size -= len(part)
        return b"".join(pieces)

    def some(self, most: int) -> memoryview:
        """Read between 1 and `most` bytes, as soon as there are any."""
        if self._start == self._end:
            self._start, self._end = 0, self._fill(0, _READ)
        first, self._start = self._start, min(self._start + most, self._end)
        return self._buffer[first : self._start]

    def view(self, size: int) -> memoryview:
        """Read `size` bytes (at most _ROOM) in one piece."""
        if self._end - self._start < size:
            left = self._end - self._start
            self._buffer[:left] = bytes(self._buffer[self._start : self._end])
            self._start, self._end = 0, left
            while self._end < size:
                self._end += self._fill(self._end, max(_READ, size - self._end))
        first, self._start = self._start, self._start + size
        return self._buffer[first : self._start]

    def share(self) -> None:
        """Read a stream that others write to, too, from here on."""
        self._shared = bytearray(self._buffer[self._start : self._end])
        self._start = self._end = 0

    def skip_past(self, mark: bytes) -> None:
        """Drop all bytes up to the first `mark`, and it."""
        while (at := bytes(self._buffer[self._start : self._end]).find(mark)) < 0:
            left = bytes(self._buffer[self._start : self._end])[1 - len(mark) :]
            self._buffer[: len(left)] = left
            self._start, self._end = 0, len(left)
            self._end += self._fill(self._end, _READ)
        self._start += at + len(mark)

    def _fill(self, at: int, most: int) -> int:
        self.waits = True
        if self._shared is None:
            got = os.readv(self._fd, [self._buffer[at : at + most]])
        else:
            got = self._fill_between(at, self._shared)
        self.waits = False
        if not got:
            raise EndOfStream
        return got

    def _fill_between(self, at: int, came: bytearray) -> int:
        while not (piece := first_piece(came)):
            more = os.read(self._fd, _READ)
            if not more:
                return 0
            came += more
        self._buffer[at : at + len(piece)] = piece
        return len(piece)


#: Bytes of payload between two marks, at least: a record of the journal stands for each, and the
#: sender, whose host may lie, must not fill the disk with them. An honest one sends 16 MiB.
BETWEEN_MARKS = 1 << 20


class Payload:
    """The payload of one parcel as it comes in, frame by frame.

    `ended` is the message of a frame that is not data, until `step` takes it: a mark, the end of
    an entry, or the end of the parcel, as `kind` says.
    """

    def __init__(self, reader: FrameReader) -> None:
        self._reader = reader
        self._left = 0
        self._since_mark = 0
        self.kind = b""
        self.ended: dict[str, Any] | None = None

    def some(self, most: int) -> memoryview:
        """Read between 1 and `most` bytes of payload; none if another kind of frame came."""
        while not self._left:
            if not self._next():
                return _NOTHING
        part = self._reader.some(min(most, self._left))
        self._left -= len(part)
        return part

    def exactly(self, size: int) -> Any:
        """Read `size` bytes of payload, in one piece that is valid until the next call."""
        if size <= self._left:
            self._left -= size
            return self._reader.view(size)
        pieces = []
        while size:
            piece = self.some(size)
            if not piece:
                raise AgentError("BAD_ARCHIVE", "the payload ends too early")
            pieces.append(bytes(piece))
            size -= len(piece)
        return b"".join(pieces)

    def step(self, most: int = 0) -> dict[str, Any]:
        """Read the message of the next frame that is not data.

        Raises BAD_ARCHIVE if more than `most` bytes of payload come before it.
        """
        while self.ended is None:
            most -= len(self.some(max(most, 0) + 1))
            if most < 0 and self.ended is None:
                raise AgentError("BAD_ARCHIVE", "more payload came than was announced")
        message, self.ended = self.ended, None
        return message

    def _next(self) -> bool:
        """Go to the next frame; False if it is not data."""
        if self.ended is None:
            self.kind, size = self._reader.header()
            if self.kind == DATA:
                if not size:
                    raise AgentError("AGENT_FAILED", "protocol error: a frame without payload")
                self._left = size
                self._since_mark += size
                return True
            if self.kind == MARK:
                if self._since_mark < BETWEEN_MARKS:
                    raise AgentError("AGENT_FAILED", "protocol error: marks come without payload")
                self._since_mark = 0
            if self.kind not in (MARK, END_ENTRY, END_PARCEL):
                raise AgentError("AGENT_FAILED", "a command came in the middle of a parcel")
            self.ended = decode(self._reader.exactly(size), MAX_HEAD)
        return False

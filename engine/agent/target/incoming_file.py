"""Writing one large file as it comes in."""

from __future__ import annotations

import errno
import hashlib
import os

from engine.agent.reader import Payload
from engine.agent.target.staged_files import extend, write_whole
from engine.agent.typed import TYPE_CHECKING
from engine.agent.wire import MARK, Entry

if TYPE_CHECKING:
    from typing import Any, Callable

    #: Called with a place in a file (bytes), this end's digest up to there, and the sender's.
    Marked = Callable[[int, bytes, bytes], None]

_CHUNK = 1 << 20
#: A run of zeros at least this long (bytes) becomes a hole.
HOLE = 64 << 10
_ZEROS = bytes(_CHUNK)

_GONE = "the part of a file that had arrived is not there any more"


class IncomingFile:
    """Writes and hashes one file as it comes in, and checks it at the sender's marks."""

    def __init__(
        self,
        fd: int,
        entry: Entry,
        start: int,
        payload: Payload,
        count: Callable[[int], None],
        marked: Marked,
    ) -> None:
        self._fd, self._entry, self._payload = fd, entry, payload
        self._count, self._marked = count, marked
        self.digest = hashlib.sha256()
        self.left = entry.size - start

    def take_up(self, start: int) -> None:
        """Hash the first `start` bytes, which arrived before, and cut off the rest."""
        if start:
            if os.fstat(self._fd).st_size < start:
                raise OSError(errno.EIO, _GONE)
            os.ftruncate(self._fd, start)
        buffer, left = memoryview(bytearray(_CHUNK)), start
        while left:
            got = os.readv(self._fd, [buffer[: min(left, _CHUNK)]])
            if not got:
                raise OSError(errno.EIO, _GONE)
            self.digest.update(buffer[:got])
            left -= got

    def write(self) -> bool:
        """Write all bytes that come; False if the sender gave up on the file."""
        hole = False
        while self.left:
            part = self._payload.some(min(self.left, _CHUNK))
            if not part:
                if self._payload.kind != MARK or not self._payload.ended:
                    return False
                self._mark(self._payload.step())
                continue
            self._count(len(part))
            self.digest.update(part)
            self.left -= len(part)
            hole = is_hole(part)
            if hole:
                os.lseek(self._fd, len(part), os.SEEK_CUR)
            else:
                write_whole(self._fd, part)
        if hole:
            extend(self._fd, self._entry.size)
        return True

    def _mark(self, message: dict[str, Any]) -> None:
        at = self._entry.size - self.left
        if message["at"] == at:
            # A hole at the end so far is not yet part of the file's size.
            if os.fstat(self._fd).st_size < at:
                extend(self._fd, at)
            self._marked(at, self.digest.copy().digest(), message["blob"])


def is_hole(part: memoryview) -> bool:
    """True if these bytes are zeros, and enough of them to leave a hole."""
    size = len(part)
    return size >= HOLE and not part[0] and not part[-1] and part.tobytes() == _ZEROS[:size]


def is_bare(fd: int, at: int, size: int) -> bool:
    """True if nothing but a hole lies there; False where the platform does not say."""
    seek_data = getattr(os, "SEEK_DATA", None)
    if seek_data is None:
        return False
    try:
        return os.lseek(fd, at, seek_data) >= at + size
    except OSError as error:
        return error.errno == errno.ENXIO  # The rest of the file is a hole.

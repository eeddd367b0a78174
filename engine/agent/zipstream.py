"""A stored ZIP archive as a stream, in both directions.

The format is PKWARE's APPNOTE 6.3.9: local headers (4.3.7), data descriptors
(4.3.9), the central directory (4.3.12) and the ZIP64 records (4.3.14, 4.3.15);
the extended timestamp field (0x5455) is Info-ZIP's. Entries are stored, names
are the file system's bytes, and bit 11 says when they are UTF-8.
"""

from __future__ import annotations

import os
import stat
import struct
import time
from typing import Callable, NamedTuple

from engine.agent.wire import FILE, FOLDER, LINK, AgentError, Entry, show

_LOCAL = struct.Struct("<IHHHHHIIIHH")
_CENTRAL = struct.Struct("<IHHHHHHIIIHHHHHII")
_END = struct.Struct("<IHHHHIIH")
_END64 = struct.Struct("<IQHHIIQQQQ")
_LOCATOR64 = struct.Struct("<IIQI")
_LOCAL_MAGIC, _CENTRAL_MAGIC = 0x04034B50, 0x02014B50
_STREAMED, _UTF8 = 0x0008, 0x0800
_MAX32, _MAX16 = 0xFFFFFFFF, 0xFFFF
_UNIX = 3 << 8
_TYPE_BITS = {FILE: stat.S_IFREG, FOLDER: stat.S_IFDIR, LINK: stat.S_IFLNK}


class _Member(NamedTuple):
    name: bytes
    entry: Entry
    flags: int
    date: int
    crc: int
    offset: int


class ZipWriter:
    """Makes the bytes of an archive, member by member; the caller sends them.

    `write` takes the pieces. A member's size must be the announced one; its
    CRC-32 is either known when it starts or follows in a data descriptor.
    """

    def __init__(self, write: Callable[..., None]) -> None:
        self._write = write
        self._offset = 0
        self._members: list[_Member] = []

    def add(self, entry: Entry, crc: int, data: bytes | memoryview = b"") -> None:
        """A member whose content is at hand."""
        header = self._start(entry, crc, streamed=False)
        self._out(header, data)

    def start(self, entry: Entry) -> None:
        """A member whose content follows through `content` and ends with `finish`."""
        self._out(self._start(entry, 0, streamed=True))

    def content(self, data: bytes | memoryview) -> None:
        """The next bytes of the member that was started."""
        self._out(data)

    def finish(self, crc: int) -> None:
        """The end of the member that was started, now that its CRC-32 is known."""
        member = self._members[-1]._replace(crc=crc)
        self._members[-1] = member
        size = member.entry.size
        form = "<IIQQ" if size >= _MAX32 else "<IIII"
        self._out(struct.pack(form, 0x08074B50, crc, size, size))

    def close(self) -> None:
        """The central directory and the end records."""
        start = self._offset
        for member in self._members:
            self._out(_central(member))
        size, count = self._offset - start, len(self._members)
        if count > _MAX16 or start >= _MAX32 or size >= _MAX32:
            self._out(
                _END64.pack(0x06064B50, 44, 45 | _UNIX, 45, 0, 0, count, count, size, start),
                _LOCATOR64.pack(0x07064B50, 0, start + size, 1),
            )
        few = min(count, _MAX16)
        self._out(_END.pack(0x06054B50, 0, 0, few, few, min(size, _MAX32), min(start, _MAX32), 0))

    def _out(self, *pieces: bytes | memoryview) -> None:
        self._offset += sum(len(piece) for piece in pieces)
        self._write(*pieces)

    def _start(self, entry: Entry, crc: int, streamed: bool) -> bytes:
        name = os.fsencode(entry.path) + (b"/" if entry.kind == FOLDER else b"")
        if len(name) > _MAX16:
            raise AgentError("NAME_TOO_LONG", f"{show(entry.path)} is too long for an archive")
        flags = _STREAMED if streamed else 0
        if not name.isascii() and _is_utf8(name):
            flags |= _UTF8
        date = _dos_date(entry.mtime_ns)
        self._members.append(_Member(name, entry, flags, date, crc, self._offset))
        extra = _timestamp(entry)
        # A streamed member's sizes stand in the descriptor; a large one says so by its ZIP64 field.
        size = 0 if streamed else entry.size
        if entry.size >= _MAX32:
            size = _MAX32
            extra += struct.pack("<HHQQ", 1, 16, 0 if streamed else entry.size, entry.size)
        version = 45 if entry.size >= _MAX32 else 20
        return (
            _LOCAL.pack(
                _LOCAL_MAGIC, version, flags, 0, date & _MAX16, date >> 16, crc,
                size, size, len(name), len(extra),
            )
            + name
            + extra
        )  # fmt: skip


def _central(member: _Member) -> bytes:
    entry, offset = member.entry, member.offset
    large = entry.size >= _MAX32
    wide = struct.pack("<QQ", entry.size, entry.size) if large else b""
    if offset >= _MAX32:
        wide += struct.pack("<Q", offset)
    extra = _timestamp(entry)
    if wide:
        extra += struct.pack("<HH", 1, len(wide)) + wide
    size = _MAX32 if large else entry.size
    attributes = (_TYPE_BITS[entry.kind] | entry.mode) << 16 | (0x10 if entry.kind == FOLDER else 0)
    return (
        _CENTRAL.pack(
            _CENTRAL_MAGIC, 45 | _UNIX, 45 if wide else 20, member.flags, 0,
            member.date & _MAX16, member.date >> 16, member.crc, size, size,
            len(member.name), len(extra), 0, 0, 0, attributes, min(offset, _MAX32),
        )
        + member.name
        + extra
    )  # fmt: skip


def _is_utf8(name: bytes) -> bool:
    try:
        name.decode("utf-8")
    except UnicodeDecodeError:
        return False
    return True


def _timestamp(entry: Entry) -> bytes:
    seconds = entry.mtime_ns // 1_000_000_000
    if not -(1 << 31) <= seconds < 1 << 31:
        return b""
    return struct.pack("<HHBi", 0x5455, 5, 1, seconds)


_dates: dict[int, int] = {}


def _dos_date(mtime_ns: int) -> int:
    """DOS date << 16 | DOS time in UTC, held inside 1980 to 2107; the manifest has the real one."""
    minute = mtime_ns // 60_000_000_000
    known = _dates.get(minute)
    if known is None:
        if len(_dates) > 10_000:
            _dates.clear()
        at = time.gmtime(min(max(minute * 60, 315_532_800), 4_354_819_140))
        day = (at.tm_year - 1980) << 9 | at.tm_mon << 5 | at.tm_mday
        known = _dates[minute] = day << 16 | at.tm_hour << 11 | at.tm_min << 5
    return known | mtime_ns // 1_000_000_000 % 60 // 2


class ZipReader:
    """Takes an archive apart as it comes and lets through only what was announced.

    `read(n)` gives exactly n bytes of the archive. Members must be entries of
    the list, in its order; entries may be missing, nothing may be added.
    """

    def __init__(self, read: Callable[[int], bytes], entries: list[Entry]) -> None:
        self._read = read
        self._entries = entries
        self._next = 0

    def member(self) -> int | None:
        """The index in the list of the member whose content comes next; None at the end."""
        magic = self._read(4)
        if magic == b"PK\x01\x02" or magic == b"PK\x05\x06":
            return None
        rest = self._read(_LOCAL.size - 4)
        (found, _, flags, method, _, _, _, stored, size, name_length, extra_length) = _LOCAL.unpack(
            magic + rest
        )
        if found != _LOCAL_MAGIC or method != 0:
            raise AgentError("BAD_ARCHIVE", "the archive holds something that is no stored member")
        name = self._read(name_length)
        extra = self._read(extra_length)
        index = self._find(name)
        entry = self._entries[index]
        streamed = bool(flags & _STREAMED)
        if not streamed and entry.size < _MAX32 and not stored == size == entry.size:
            raise AgentError("BAD_ARCHIVE", "a member's size is not the announced one")
        if not streamed and entry.size >= _MAX32 and _wide_size(extra) != entry.size:
            raise AgentError("BAD_ARCHIVE", "a member's size is not the announced one")
        self._tail = 0 if not streamed else 24 if entry.size >= _MAX32 else 16
        return index

    def member_done(self) -> None:
        """Step over what follows a member's content."""
        if self._tail:
            self._read(self._tail)

    def _find(self, name: bytes) -> int:
        for index in range(self._next, len(self._entries)):
            entry = self._entries[index]
            if name == os.fsencode(entry.path) + (b"/" if entry.kind == FOLDER else b""):
                self._next = index + 1
                return index
        raise AgentError("BAD_ARCHIVE", "the archive holds an entry that was not announced")


def _wide_size(extra: bytes) -> int:
    at = 0
    while at + 4 <= len(extra):
        field, length = struct.unpack_from("<HH", extra, at)
        if field == 1 and length >= 16:
            return int(struct.unpack_from("<Q", extra, at + 4)[0])
        at += 4 + length
    return -1

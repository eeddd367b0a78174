"""A stored ZIP archive as a stream, in both directions.

The format is PKWARE's APPNOTE 6.3.9: local headers (4.3.7), data descriptors
(4.3.9), the central directory (4.3.12) and the ZIP64 records (4.3.14, 4.3.15);
the extended timestamp field (0x5455) is Info-ZIP's. Entries are stored, names
are the file system's bytes, and bit 11 says when they are UTF-8.
"""

from __future__ import annotations

import stat
import struct
import time
from typing import Any, Callable

from engine.agent.wire import FILE, FOLDER, LINK, TWIN, AgentError, Entry, show

_LOCAL = struct.Struct("<IHHHHHIIIHH")
_CENTRAL = struct.Struct("<IHHHHHHIIIHHHHHII")
#: A central record up to the fields it shares with the local header, and from the CRC on.
_CENTRAL_HEAD, _CENTRAL_TAIL = struct.Struct("<IHH"), struct.Struct("<IIIHHHHHII")
_END = struct.Struct("<IHHHHIIH")
_END64 = struct.Struct("<IQHHIIQQQQ")
_LOCATOR64 = struct.Struct("<IIQI")
_TIMESTAMP = struct.Struct("<HHBi")
_LOCAL_MAGIC, _CENTRAL_MAGIC = 0x04034B50, 0x02014B50
_STREAMED, _UTF8 = 0x0008, 0x0800
_MAX32, _MAX16 = 0xFFFFFFFF, 0xFFFF
_UNIX = 3 << 8
#: The external attributes without the permissions: Unix's type, and DOS's mark of a folder.
_ATTRIBUTES = {
    FILE: stat.S_IFREG << 16,
    TWIN: stat.S_IFREG << 16,
    FOLDER: stat.S_IFDIR << 16 | 0x10,
    LINK: stat.S_IFLNK << 16,
}


class ZipWriter:
    """Makes the bytes of an archive, member by member; the caller sends them.

    `write` takes the pieces. A member's size must be the announced one; its
    CRC-32 is either known when it starts or follows in a data descriptor.
    """

    def __init__(self, write: Callable[[Any], None]) -> None:
        self._write = write
        self._offset = 0
        self._count = 0
        self._central = bytearray()
        self._open: tuple[Entry, bytes, bytes, int] | None = None

    def add(self, entry: Entry, crc: int, data: bytes = b"") -> None:
        """A member whose content is at hand."""
        offset, size = self._offset, len(data)
        if offset >= _MAX32 or size >= _MAX32:
            name, header = self._header(entry, crc, streamed=False)
            self._list(entry, name, header, crc, offset)
        else:
            # By far the most members: the same bytes, in half the time.
            name, flags = self._name(entry)
            date, extra = _dos_date(entry.mtime_ns), _timestamp(entry)
            sizes, fixed = (len(name), len(extra)), (flags, 0, date & _MAX16, date >> 16, crc)
            header = _LOCAL.pack(_LOCAL_MAGIC, 20, *fixed, size, size, *sizes) + name + extra
            attributes = _ATTRIBUTES[entry.kind] | entry.mode << 16
            self._central += _CENTRAL.pack(
                _CENTRAL_MAGIC, 45 | _UNIX, 20, *fixed, size, size, *sizes,
                0, 0, 0, attributes, offset,
            ) + name + extra  # fmt: skip
            self._count += 1
        self._write(header)
        if size:
            self._write(data)
        self._offset = offset + len(header) + size

    def start(self, entry: Entry) -> None:
        """A member whose content follows through `content` and ends with `finish`."""
        name, header = self._header(entry, 0, streamed=True)
        self._open = (entry, name, header, self._offset)
        self._write(header)
        self._offset += len(header)

    def content(self, data: Any) -> None:
        """The next bytes of the member that was started."""
        self._write(data)
        self._offset += len(data)

    def finish(self, crc: int) -> None:
        """The end of the member that was started, now that its CRC-32 is known."""
        assert self._open
        entry, name, header, offset = self._open
        form = "<IIQQ" if entry.size >= _MAX32 else "<IIII"
        tail = struct.pack(form, 0x08074B50, crc, entry.size, entry.size)
        self._write(tail)
        self._offset += len(tail)
        self._list(entry, name, header, crc, offset)

    def close(self) -> None:
        """The central directory and the end records."""
        start, size, count = self._offset, len(self._central), self._count
        self._write(bytes(self._central))
        if count > _MAX16 or start >= _MAX32 or size >= _MAX32:
            self._write(
                _END64.pack(0x06064B50, 44, 45 | _UNIX, 45, 0, 0, count, count, size, start)
                + _LOCATOR64.pack(0x07064B50, 0, start + size, 1)
            )
        few = min(count, _MAX16)
        self._write(_END.pack(0x06054B50, 0, 0, few, few, min(size, _MAX32), min(start, _MAX32), 0))

    def _header(self, entry: Entry, crc: int, streamed: bool) -> tuple[bytes, bytes]:
        name, flags = self._name(entry)
        flags |= _STREAMED if streamed else 0
        date = _dos_date(entry.mtime_ns)
        extra = _timestamp(entry)
        # A streamed member's sizes stand in the descriptor; a large one says so by its ZIP64 field.
        size, version = 0 if streamed else entry.size, 20
        if entry.size >= _MAX32:
            extra += struct.pack("<HHQQ", 1, 16, size, size)
            size, version = _MAX32, 45
        fixed = _LOCAL.pack(
            _LOCAL_MAGIC, version, flags, 0, date & _MAX16, date >> 16, crc,
            size, size, len(name), len(extra),
        )  # fmt: skip
        return name, fixed + name + extra

    def _name(self, entry: Entry) -> tuple[bytes, int]:
        """A member's name, and the flag that says whether it is UTF-8."""
        name = member_name(entry)
        if len(name) > _MAX16:
            raise AgentError("NAME_TOO_LONG", f"{show(entry.path)} is too long for an archive")
        return name, 0 if name.isascii() or not _is_utf8(name) else _UTF8

    def _list(self, entry: Entry, name: bytes, header: bytes, crc: int, offset: int) -> None:
        """Put a member into the central directory, whose records repeat the local headers."""
        self._count += 1
        large, wide = entry.size >= _MAX32, b""
        if large:
            wide = struct.pack("<QQ", entry.size, entry.size)
        if offset >= _MAX32:
            wide += struct.pack("<Q", offset)
        extra = _timestamp(entry)
        if wide:
            extra += struct.pack("<HH", 1, len(wide)) + wide
        size = _MAX32 if large else entry.size
        attributes = _ATTRIBUTES[entry.kind] | entry.mode << 16
        self._central += _CENTRAL_HEAD.pack(_CENTRAL_MAGIC, 45 | _UNIX, 45 if wide else 20)
        self._central += header[6:14]  # Flags, method, time and date.
        self._central += _CENTRAL_TAIL.pack(
            crc, size, size, len(name), len(extra), 0, 0, 0, attributes, min(offset, _MAX32)
        )
        self._central += name
        self._central += extra


def member_name(entry: Entry) -> bytes:
    """The name an entry takes in an archive: the file system's bytes, a folder with a slash."""
    name = entry.path.encode("utf-8", "surrogateescape")
    return name + b"/" if entry.kind == FOLDER else name


def _is_utf8(name: bytes) -> bool:
    try:
        name.decode("utf-8")
    except UnicodeDecodeError:
        return False
    return True


def _timestamp(entry: Entry) -> bytes:
    seconds = entry.mtime_ns // 1_000_000_000
    if not 0 <= seconds < 1 << 31:  # Readers do not agree on what less than nothing means.
        return b""
    return _TIMESTAMP.pack(0x5455, 5, 1, seconds)


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

    def __init__(self, read: Callable[[int], Any], entries: list[Entry]) -> None:
        self._read = read
        self._entries = entries
        self._next = 0
        self._tail = 0

    def member(self) -> int | None:
        """The index in the list of the member whose content comes next; None at the end.

        What follows the last member, the central directory, is the caller's to
        step over: it repeats what the list has said already.
        """
        # An archive without members is shorter than a header; one with some never ends so soon.
        fixed = bytes(self._read(_LOCAL.size if self._next else 4))
        if fixed[:4] in (b"PK\x01\x02", b"PK\x05\x06"):
            return None
        if not self._next:
            fixed += self._read(_LOCAL.size - 4)
        (found, _, flags, method, _, _, _, stored, size, name_length, extra_length) = _LOCAL.unpack(
            fixed
        )
        if found != _LOCAL_MAGIC or method != 0:
            raise AgentError("BAD_ARCHIVE", "the archive holds something that is no stored member")
        name_and_extra = bytes(self._read(name_length + extra_length))
        name = name_and_extra[:name_length]
        index = self._find(name)
        entry = self._entries[index]
        streamed = bool(flags & _STREAMED)
        if not streamed and entry.size < _MAX32 and not stored == size == entry.size:
            raise AgentError("BAD_ARCHIVE", "a member's size is not the announced one")
        wide = not streamed and entry.size >= _MAX32
        if wide and _wide_size(name_and_extra[name_length:]) != entry.size:
            raise AgentError("BAD_ARCHIVE", "a member's size is not the announced one")
        self._tail = 0 if not streamed else 24 if entry.size >= _MAX32 else 16
        return index

    def member_done(self) -> None:
        """Step over what follows a member's content."""
        if self._tail:
            self._read(self._tail)

    def _find(self, name: bytes) -> int:
        for index in range(self._next, len(self._entries)):
            if name == member_name(self._entries[index]):
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

"""Writing a stored ZIP archive as a stream; the format see `zip_format`."""

from __future__ import annotations

import stat
import struct
import time

from engine.agent.typed import TYPE_CHECKING
from engine.agent.wire import FILE, FOLDER, HARD_LINK, LINK, AgentError, Entry, show
from engine.agent.zip_format import LOCAL, LOCAL_MAGIC, MAX32, STREAMED, member_name

if TYPE_CHECKING:
    from typing import Any, Callable

_CENTRAL = struct.Struct("<IHHHHHHIIIHHHHHII")
#: A central record before the fields it shares with the local header, and from the CRC on.
_CENTRAL_HEAD, _CENTRAL_TAIL = struct.Struct("<IHH"), struct.Struct("<IIIHHHHHII")
_END = struct.Struct("<IHHHHIIH")
_END64 = struct.Struct("<IQHHIIQQQQ")
_LOCATOR64 = struct.Struct("<IIQI")
_TIMESTAMP = struct.Struct("<HHBi")
_CENTRAL_MAGIC = 0x02014B50
_UTF8, _MAX16 = 0x0800, 0xFFFF
_UNIX = 3 << 8
#: The external attributes without the permissions: Unix's type, and DOS's bit of a folder.
_ATTRIBUTES = {
    FILE: stat.S_IFREG << 16,
    HARD_LINK: stat.S_IFREG << 16,
    FOLDER: stat.S_IFDIR << 16 | 0x10,
    LINK: stat.S_IFLNK << 16,
}


class ZipWriter:
    """Makes the bytes of an archive, member by member, and passes them to `write`.

    A member's size must be the announced one. Its CRC-32 is either known when the member starts,
    or follows in a data descriptor.
    """

    def __init__(self, write: Callable[[Any], None]) -> None:
        self._write = write
        self._offset = 0
        self._count = 0
        self._central = bytearray()
        self._open: tuple[Entry, bytes, bytes, int] | None = None

    def add(self, entry: Entry, crc: int, data: bytes = b"") -> None:
        """Add a member whose content is at hand."""
        offset, size = self._offset, len(data)
        if offset >= MAX32 or size >= MAX32:
            name, header = self._header(entry, crc, streamed=False)
            self._list(entry, name, header, crc, offset)
        else:
            # Nearly all members come here: the same bytes as above, in half the time.
            name, flags = self._name(entry)
            date, extra = _dos_date(entry.mtime_ns), _timestamp(entry)
            sizes, fixed = (len(name), len(extra)), (flags, 0, date & _MAX16, date >> 16, crc)
            header = LOCAL.pack(LOCAL_MAGIC, 20, *fixed, size, size, *sizes) + name + extra
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
        """Start a member; its bytes follow by `content`, its end by `finish`."""
        name, header = self._header(entry, 0, streamed=True)
        self._open = (entry, name, header, self._offset)
        self._write(header)
        self._offset += len(header)

    def content(self, data: Any) -> None:
        """Add bytes to the member that was started."""
        self._write(data)
        self._offset += len(data)

    def finish(self, crc: int) -> None:
        """End the member that was started, with its CRC-32."""
        assert self._open
        entry, name, header, offset = self._open
        form = "<IIQQ" if entry.size >= MAX32 else "<IIII"
        tail = struct.pack(form, 0x08074B50, crc, entry.size, entry.size)
        self._write(tail)
        self._offset += len(tail)
        self._list(entry, name, header, crc, offset)

    def close(self) -> None:
        """Write the central directory and the end records."""
        start, size, count = self._offset, len(self._central), self._count
        self._write(bytes(self._central))
        if count > _MAX16 or start >= MAX32 or size >= MAX32:
            self._write(
                _END64.pack(0x06064B50, 44, 45 | _UNIX, 45, 0, 0, count, count, size, start)
                + _LOCATOR64.pack(0x07064B50, 0, start + size, 1)
            )
        few = min(count, _MAX16)
        self._write(_END.pack(0x06054B50, 0, 0, few, few, min(size, MAX32), min(start, MAX32), 0))

    def _header(self, entry: Entry, crc: int, streamed: bool) -> tuple[bytes, bytes]:
        name, flags = self._name(entry)
        flags |= STREAMED if streamed else 0
        date = _dos_date(entry.mtime_ns)
        extra = _timestamp(entry)
        # A streamed member's sizes stand in its descriptor; the ZIP64 field shows a large one.
        size, version = 0 if streamed else entry.size, 20
        if entry.size >= MAX32:
            extra += struct.pack("<HHQQ", 1, 16, size, size)
            size, version = MAX32, 45
        fixed = LOCAL.pack(
            LOCAL_MAGIC, version, flags, 0, date & _MAX16, date >> 16, crc,
            size, size, len(name), len(extra),
        )  # fmt: skip
        return name, fixed + name + extra

    def _name(self, entry: Entry) -> tuple[bytes, int]:
        """A member's name, and the flag for a name in UTF-8."""
        name = member_name(entry)
        if len(name) > _MAX16:
            raise AgentError(
                "NAME_TOO_LONG", f"{show(entry.path)} is a path too long for an archive"
            )
        return name, 0 if name.isascii() or not _is_utf8(name) else _UTF8

    def _list(self, entry: Entry, name: bytes, header: bytes, crc: int, offset: int) -> None:
        """Add a member to the central directory, whose records repeat the local headers."""
        self._count += 1
        large, wide = entry.size >= MAX32, b""
        if large:
            wide = struct.pack("<QQ", entry.size, entry.size)
        if offset >= MAX32:
            wide += struct.pack("<Q", offset)
        extra = _timestamp(entry)
        if wide:
            extra += struct.pack("<HH", 1, len(wide)) + wide
        size = MAX32 if large else entry.size
        attributes = _ATTRIBUTES[entry.kind] | entry.mode << 16
        self._central += _CENTRAL_HEAD.pack(_CENTRAL_MAGIC, 45 | _UNIX, 45 if wide else 20)
        self._central += header[6:14]  # Flags, method, time and date.
        self._central += _CENTRAL_TAIL.pack(
            crc, size, size, len(name), len(extra), 0, 0, 0, attributes, min(offset, MAX32)
        )
        self._central += name
        self._central += extra


def _is_utf8(name: bytes) -> bool:
    try:
        name.decode("utf-8")
    except UnicodeDecodeError:
        return False
    return True


def _timestamp(entry: Entry) -> bytes:
    seconds = entry.mtime_ns // 1_000_000_000
    if not 0 <= seconds < 1 << 31:  # Programs read numbers outside this range differently.
        return b""
    return _TIMESTAMP.pack(0x5455, 5, 1, seconds)


_dates: dict[int, int] = {}


def _dos_date(mtime_ns: int) -> int:
    """DOS date << 16 | DOS time in UTC, limited to 1980 to 2107; the manifest has the real time."""
    minute = mtime_ns // 60_000_000_000
    known = _dates.get(minute)
    if known is None:
        if len(_dates) > 10_000:
            _dates.clear()
        at = time.gmtime(min(max(minute * 60, 315_532_800), 4_354_819_140))
        day = (at.tm_year - 1980) << 9 | at.tm_mon << 5 | at.tm_mday
        known = _dates[minute] = day << 16 | at.tm_hour << 11 | at.tm_min << 5
    return known | mtime_ns // 1_000_000_000 % 60 // 2

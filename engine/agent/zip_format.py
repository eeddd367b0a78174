"""The format of a stored ZIP archive, as far as both ends need it.

The format is PKWARE's APPNOTE 6.3.9: local headers (4.3.7), data descriptors
(4.3.9), the central directory (4.3.12) and the ZIP64 records (4.3.14, 4.3.15);
the extended timestamp field (0x5455) is Info-ZIP's. Entries are stored, names
are the file system's bytes, and bit 11 says when they are UTF-8.
"""

from __future__ import annotations

import struct

from engine.agent.wire import FOLDER, Entry

#: A local header: its magic number, version, flags, method, time, date, CRC, sizes, lengths.
LOCAL = struct.Struct("<IHHHHHIIIHH")
LOCAL_MAGIC = 0x04034B50
#: The flag of a member whose CRC and sizes follow in a data descriptor.
STREAMED = 0x0008
#: A size or an offset that stands in a ZIP64 field.
MAX32 = 0xFFFFFFFF


def member_name(entry: Entry) -> bytes:
    """The name of an entry in an archive: the file system's bytes, a slash behind a folder's."""
    name = entry.path.encode("utf-8", "surrogateescape")
    return name + b"/" if entry.kind == FOLDER else name

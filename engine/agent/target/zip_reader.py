"""Reading a stored ZIP archive as it comes in; the format see `zip_format`."""

from __future__ import annotations

import struct

from engine.agent.typed import TYPE_CHECKING
from engine.agent.wire import AgentError, Entry
from engine.agent.zip_format import LOCAL, LOCAL_MAGIC, MAX32, STREAMED, member_name

if TYPE_CHECKING:
    from typing import Any, Callable

_WRONG_SIZE = "a member's size in the archive is not the announced one"


class ZipReader:
    """Takes an archive apart as it comes; refuses members that were not announced.

    `read(n)` gives exactly n bytes of the archive. Members must be entries of the list, in its
    order; entries may be missing.
    """

    def __init__(self, read: Callable[[int], Any], entries: list[Entry]) -> None:
        self._read = read
        self._entries = entries
        self._next = 0
        self._tail = 0

    def member(self) -> int | None:
        """Read up to the next member's content; return its place in the list, None at the end.

        The caller must skip what follows the last member: the central directory, which repeats
        the list. Raises BAD_ARCHIVE if a member is not as announced.
        """
        # An archive without members is shorter than a header; one with members is longer.
        fixed = bytes(self._read(LOCAL.size if self._next else 4))
        if fixed[:4] in (b"PK\x01\x02", b"PK\x05\x06"):
            return None
        if not self._next:
            fixed += self._read(LOCAL.size - 4)
        (found, _, flags, method, _, _, _, stored, size, name_length, extra_length) = LOCAL.unpack(
            fixed
        )
        if found != LOCAL_MAGIC or method != 0:
            raise AgentError("BAD_ARCHIVE", "the archive holds something that is no stored member")
        name_and_extra = bytes(self._read(name_length + extra_length))
        name = name_and_extra[:name_length]
        index = self._find(name)
        entry = self._entries[index]
        streamed = bool(flags & STREAMED)
        if not streamed and entry.size < MAX32 and not stored == size == entry.size:
            raise AgentError("BAD_ARCHIVE", _WRONG_SIZE)
        wide = not streamed and entry.size >= MAX32
        if wide and _wide_size(name_and_extra[name_length:]) != entry.size:
            raise AgentError("BAD_ARCHIVE", _WRONG_SIZE)
        self._tail = 0 if not streamed else 24 if entry.size >= MAX32 else 16
        return index

    def member_done(self) -> None:
        """Skip the data descriptor behind a member's content, if there is one."""
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

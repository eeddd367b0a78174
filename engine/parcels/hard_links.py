"""HardLinks: further names of files, in the spool until all other files are planned."""

from __future__ import annotations

from engine.agent.wire import LIST_BYTES, MAX_ENTRIES, Entry, pack_entries
from engine.parcels.spool import Block, Spool
from engine.protocol.lists import weight_of


class HardLinks:
    """Takes further names of files one by one; a source may have any number of them."""

    def __init__(self, spool: Spool) -> None:
        self._spool = spool
        self._entries: list[Entry] = []
        self._weight = 0
        self._lists: list[tuple[Block, int]] = []

    def add(self, entry: Entry) -> None:
        """Keep an entry."""
        self._entries.append(entry)
        self._weight += weight_of(entry)
        if len(self._entries) >= MAX_ENTRIES or self._weight >= LIST_BYTES:
            self._cut()

    def lists(self) -> list[tuple[Block, int]]:
        """Return the lists of all entries, each with the number of its entries."""
        self._cut()
        return self._lists

    def _cut(self) -> None:
        entries, self._entries, self._weight = self._entries, [], 0
        if entries:
            self._lists.append((self._spool.add(pack_entries(entries)), len(entries)))

"""What an earlier attempt has brought and proven, held against what the source has now."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from typing import Any

from engine.agent.wire import DIGEST, Entry, unpack_entries
from engine.hub import Message
from engine.spool import Block, Spool


class Held:
    """Entries in the staging folder that need not be sent again.

    Each is known by everything that must not have changed; some 70 bytes of
    memory for each.
    """

    def __init__(self, spool: Spool) -> None:
        self._spool = spool
        self._parcels: list[tuple[Block, int]] = []
        self._waiting: set[int] = set()
        #: Files that have arrived in part, by path; see `agent.resume.Survey`.
        self.parts: dict[str, dict[str, Any]] = {}
        #: The name of the archive in which all of it has been delivered already.
        self.delivered = ""

    def told(self, message: Message) -> None:
        """Take in what the target tells of its staging folder."""
        if "parts" in message:
            self.parts = {part["file"][0]: part for part in message["parts"]}
            return
        if "delivered" in message:
            self.delivered = message["delivered"]
            return
        blob, size = message["blob"], message["list"]
        self._parcels.append((self._spool.add(blob), size))
        key = _place if self.delivered else _key
        self._waiting.update(map(key, unpack_entries(blob[:size])))

    def take(self, entries: Iterable[Entry]) -> list[Entry]:
        """Strike out what is there; returns what is not."""
        if not self._waiting:
            return list(entries)
        missing = []
        for entry in entries:
            key = _key(entry)
            if key in self._waiting:
                self._waiting.discard(key)
            else:
                missing.append(entry)
        return missing

    def has(self, entry: Entry) -> bool:
        """Whether something of that name is in the archive that was delivered."""
        return _place(entry) in self._waiting

    def all(self) -> Iterator[tuple[list[Entry], bytes]]:
        """All there is, a list of entries and their digests at a time."""
        for block, size in self._parcels:
            blob = self._spool.get(block)
            yield unpack_entries(blob[:size]), blob[size:]

    def part(self, entry: Entry) -> dict[str, Any]:
        """What has arrived of a file, if it is still the same file."""
        part = self.parts.get(entry.path)
        if part and part["file"] == [entry.path, entry.size, entry.mtime_ns, entry.ino]:
            return part
        return {}

    def sort(
        self,
        found: Callable[[list[Entry], list[bytes]], None],
        stale: Callable[[list[Entry]], None],
    ) -> None:
        """After the scan: hand out what was struck out, and what the source has no more."""
        for entries, proofs in self.all():
            there: list[Entry] = []
            digests: list[bytes] = []
            gone: list[Entry] = []
            for index, entry in enumerate(entries):
                if _key(entry) in self._waiting:
                    gone.append(entry)
                    continue
                there.append(entry)
                digests.append(proofs[index * DIGEST : (index + 1) * DIGEST])
            if there:
                found(there, digests)
            if gone:
                stale(gone)


def _key(entry: Entry) -> int:
    return hash(entry)


def _place(entry: Entry) -> int:
    return hash(entry.path)

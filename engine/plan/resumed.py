"""Resumed: the entries that an earlier attempt delivered and proved, compared with the source."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator

from engine.agent.wire import AgentError, Entry, count_of, unpack_entries
from engine.parcels.spool import Block, Spool
from engine.plan.on_record import OnRecord
from engine.protocol.digests import digest_at, require_digests
from engine.protocol.lists import entries_of
from engine.protocol.messages import DeliveredArchive, FilePart, StagedEntries, StagedParts

#: Files that arrived in part, at most: each was under way when an attempt ended, and has 64 MiB
#: or more.
MOST_PARTS = 100_000
#: The characters of their paths, at most: they stay in memory, four bytes each at worst.
MOST_PATHS = 8 << 20
#: Their pieces, at most: neighbours are one, so that a file has some hundred.
MOST_RUNS = 200_000
#: Entries that arrived, at most, in all lists: a target that lists without end must not fill this
#: machine's memory. A list counts as LEAST entries, or more: it takes memory, too. The spool
#: bounds the bytes.
MOST_ENTRIES, LEAST = 20_000_000, 16
#: Entries beyond those that earlier attempts planned, by the record of them: it may lack the last
#: second, and the folders of older versions. They take 24 MB. Without a record there is no more.
BEYOND_PLAN = 300_000


class _Counts:
    """What a target has listed so far; raises AgentError (AGENT_FAILED) beyond the limits."""

    def __init__(self) -> None:
        self.entries = self._weight = self._runs = self._path_length = 0

    def add_list(self, message: StagedEntries) -> None:
        count = count_of(message.entries)
        self.entries += max(count, 1)  # An empty list takes memory, too.
        self._weight += max(count, LEAST)
        if self._weight > MOST_ENTRIES:
            raise AgentError(
                "AGENT_FAILED",
                f"protocol error at the target: more than {MOST_ENTRIES:,} entries that arrived",
            )

    def add_parts(self, message: StagedParts, files: int) -> None:
        """Count pieces and paths; `files` is the number of all files in part."""
        self._path_length += sum(len(part.path) for part in message.parts)
        self._runs += sum(len(part.slices) for part in message.parts)
        if files > MOST_PARTS or self._runs > MOST_RUNS or self._path_length > MOST_PATHS:
            raise AgentError(
                "AGENT_FAILED",
                f"protocol error at the target: more than {MOST_PARTS:,} files in part, "
                f"{MOST_RUNS:,} pieces of them, or {MOST_PATHS:,} characters in their paths",
            )


class Resumed:
    """Entries in the staging folder that need not be sent again.

    An entry is recognised by all its fields that must not have changed; each takes some
    80 bytes of memory, with those of `on_record`, which gets all of them. `at_source` gives an
    entry the name that it has at the source.
    """

    def __init__(
        self, spool: Spool, on_record: OnRecord, at_source: Callable[[Entry], Entry]
    ) -> None:
        self._spool, self._on_record, self._at_source = spool, on_record, at_source
        self._parcels: list[tuple[Block, int]] = []
        self._waiting: set[int] = set()
        self._counts = _Counts()
        self._most: int | None = None
        #: True if the target lists more entries than earlier attempts planned: none is kept.
        self.is_too_long = False
        #: Files that arrived in part, by path; see `FilePart`.
        self.parts: dict[str, FilePart] = {}
        #: The archive in which an earlier attempt delivered all entries, if it did.
        self.delivered = ""

    def on_message(self, message: StagedParts | DeliveredArchive | StagedEntries) -> None:
        """Take in one of the target's messages about its staging folder."""
        if isinstance(message, StagedParts):
            self.parts.update({part.path: part for part in message.parts})
            self._counts.add_parts(message, len(self.parts))
        elif isinstance(message, DeliveredArchive):
            self.delivered = message.name
        else:
            self._counts.add_list(message)
            self._compare_with_plan()
            if self.is_too_long:
                return
            entries, size = entries_of(message.entries), len(message.entries)
            require_digests(message, len(entries))
            self._parcels.append((self._spool.add(message.entries + message.digests), size))
            self._waiting.update(map(_place if self.delivered else _key, entries))
            if not self.delivered:
                self._on_record.expect(map(self._at_source, entries), message.digests)

    def _compare_with_plan(self) -> None:
        if self.delivered:  # The source may be gone in part: there is no beginning again.
            return
        if self._most is None:
            self._most = (self._on_record.most or 0) + BEYOND_PLAN
        if self._counts.entries > self._most and not self.is_too_long:
            self.forget()
            self.is_too_long = True

    def forget(self) -> None:
        """Take nothing as staged."""
        self._parcels.clear()
        self._waiting.clear()
        self.parts.clear()
        self._on_record.forget()

    def take(self, entries: Iterable[Entry]) -> list[Entry]:
        """Strike out the entries that are staged; return the others."""
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
        """True if the delivered archive has an entry of that path."""
        return _place(entry) in self._waiting

    def all(self) -> Iterator[tuple[list[Entry], bytes]]:
        """Yield all delivered entries: a list of entries and their digests at a time."""
        for block, size in self._parcels:
            blob = self._spool.get(block)
            yield unpack_entries(blob[:size]), blob[size:]

    def part(self, entry: Entry) -> FilePart | None:
        """Return the part of a file that arrived; None if the file has changed since."""
        part = self.parts.get(entry.path)
        if part and part[:4] == (entry.path, entry.size, entry.mtime_ns, entry.ino):
            return part
        return None

    def sort(
        self,
        found: Callable[[list[Entry], list[bytes]], None],
        stale: Callable[[list[Entry]], None],
    ) -> None:
        """After the scan: pass on the entries struck out, and those no longer at the source."""
        for entries, proofs in self.all():
            there: list[Entry] = []
            digests: list[bytes] = []
            gone: list[Entry] = []
            for index, entry in enumerate(entries):
                if _key(entry) in self._waiting:
                    gone.append(entry)
                    continue
                there.append(entry)
                digests.append(digest_at(proofs, index))
            if there:
                found(there, digests)
            if gone:
                stale(gone)


def _key(entry: Entry) -> int:
    return hash(entry)


def _place(entry: Entry) -> int:
    return hash(entry.path)

"""The plan: what goes into which parcel, and why."""

from __future__ import annotations

import json
import zlib
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any

from engine.agent.wire import FILE, FOLDER, Entry
from engine.types import Blob, ParcelKind, Strategy

#: Files below this size (bytes) are small: they are packed when there are enough of them.
SMALL = 1 << 20
#: Fewer small files than this are not worth an archive.
WORTH_PACKING = 16

#: A parcel is cut when it holds so many bytes, entries, or bytes of names.
PARCEL_BYTES = {ParcelKind.ZIP: 64 << 20, ParcelKind.FILE: 256 << 20}
PARCEL_ENTRIES = 10_000
PARCEL_NAMES = 4 << 20


@dataclass(frozen=True)
class Parcel:
    """A bounded part of the tree; its entries are kept compressed until they are needed."""

    number: int
    kind: ParcelKind
    files: int
    bytes: int
    blob: Blob

    def entries(self) -> list[Entry]:
        """The entries, in the order in which they are sent."""
        return unpack(self.blob)


def pack(entries: Iterable[Entry]) -> bytes:
    """Entries as a small block of bytes, so that a million of them stay affordable."""
    return zlib.compress(json.dumps(list(entries), separators=(",", ":")).encode("ascii"), 1)


def unpack(blob: bytes) -> list[Entry]:
    """What `pack` packed."""
    return [Entry(*row) for row in json.loads(zlib.decompress(blob))]


@dataclass
class _Group:
    entries: list[Entry] = field(default_factory=list)
    bytes: int = 0
    names: int = 0
    files: int = 0

    def add(self, entry: Entry) -> None:
        self.entries.append(entry)
        self.bytes += entry.size
        self.names += len(entry.path)
        self.files += entry.kind != FOLDER


class Planner:
    """Takes entries one by one and cuts them into parcels."""

    def __init__(self, strategy: Strategy) -> None:
        self._strategy = strategy
        self._groups = {kind: _Group() for kind in ParcelKind}
        self.parcels: list[Parcel] = []
        self.counts: Counter[str] = Counter()
        self.bytes = 0

    def add(self, entry: Entry) -> None:
        """Put an entry where it belongs."""
        self.counts[entry.kind] += 1
        self.bytes += entry.size
        small = entry.kind != FILE or entry.size < SMALL
        packed = self._strategy is Strategy.ZIP or (small and self._strategy is Strategy.AUTO)
        kind = ParcelKind.ZIP if packed else ParcelKind.FILE
        group = self._groups[kind]
        if group.entries and group.bytes + entry.size > PARCEL_BYTES[kind]:
            group = self._cut(kind)
        group.add(entry)
        if len(group.entries) >= PARCEL_ENTRIES or group.names >= PARCEL_NAMES:
            self._cut(kind)

    def finish(self) -> list[Parcel]:
        """Cut what is left and return all parcels."""
        for kind, group in self._groups.items():
            if group.entries:
                self._cut(kind)
        return self.parcels

    @property
    def files(self) -> int:
        """How many entries are not folders."""
        return self.counts.total() - self.counts[FOLDER]

    def summary(self) -> dict[str, Any]:
        """The plan in figures and in a sentence."""
        kinds = Counter(parcel.kind.value for parcel in self.parcels)
        return {
            "files": self.files,
            "folders": self.counts[FOLDER],
            "bytes": self.bytes,
            "parcels": dict(kinds),
            "strategy": self._strategy.value,
            "why": self._why(kinds),
        }

    def _why(self, kinds: Counter[str]) -> str:
        if self._strategy is not Strategy.AUTO:
            return f"the strategy {self._strategy.value} was asked for"
        if not kinds:
            return "nothing to send"
        reasons = []
        if kinds["zip"]:
            reasons.append(f"entries below {SMALL >> 20} MiB are packed into archives")
        if kinds["file"]:
            reasons.append(f"large files, or fewer than {WORTH_PACKING} small ones, go as they are")
        return "; ".join(reasons)

    def _cut(self, kind: ParcelKind) -> _Group:
        """Make a parcel of a group and return the new, empty group."""
        group = self._groups[kind]
        if self._strategy is Strategy.AUTO and len(group.entries) < WORTH_PACKING:
            kind_on_wire = ParcelKind.FILE
        else:
            kind_on_wire = kind
        number = len(self.parcels) + 1
        blob = pack(group.entries)
        self.parcels.append(Parcel(number, kind_on_wire, group.files, group.bytes, blob))
        self._groups[kind] = _Group()
        return self._groups[kind]

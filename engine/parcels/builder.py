"""The plan: what goes into which parcel, and why."""

from __future__ import annotations

import itertools
from collections import Counter
from collections.abc import Callable, Iterable
from typing import Any, NamedTuple

from engine.agent.wire import FILE, FOLDER, LINK, TWIN, Entry, pack_entries, unpack_entries
from engine.spool import Block, Spool
from engine.types import ParcelKind, Strategy

#: Files below this size (bytes) are small: they are packed when there are enough of them.
SMALL = 1 << 20
#: Fewer small files than this are not worth an archive.
WORTH_PACKING = 16
#: A file of at least this size (bytes) travels alone: in order, or as slices over several streams.
LARGE = 64 << 20
#: A slice of a large file (bytes); its digest is compared as soon as it has arrived.
SLICE = 8 << 20

#: Parcels grow from the first figure to the second (bytes), doubling every GROWS_EVERY parcels,
#: and then with what is planned, of which each is one of PARTS: so a small transfer is spread
#: over its streams, and a large one, of whatever size, has only some thousand of them.
PARCEL_BYTES = {ParcelKind.ZIP: (4 << 20, 64 << 20), ParcelKind.FILE: (8 << 20, 256 << 20)}
GROWS_EVERY = 16
PARTS = 384
#: Slices of a parcel at most: its head has a list of them.
MOST_SLICES = 16 << 10
#: So many large files travel alone in any case, further ones if they are as large as a parcel.
ALONE = 1000
PARCEL_ENTRIES = 10_000
PARCEL_NAMES = 4 << 20
#: What a file takes beside its content, as bytes that could travel meanwhile.
FILE_COSTS = 8 << 10


class LargeFile:
    """A file that travels in slices: how many of its parcels are still to be proven."""

    def __init__(self, entry: Entry) -> None:
        self.entry = entry
        self.parcels_left = 0
        self.tries = 1
        self.failed = False


class Parcel(NamedTuple):
    """A bounded part of the tree; its list of entries lies in the plan's spool.

    `start` is where a single large file begins that has arrived in part;
    `slices` are [place, size] in bytes of the `large` file.
    """

    number: int
    kind: ParcelKind
    files: int
    bytes: int
    block: Block
    start: int = 0
    slices: tuple[tuple[int, int], ...] = ()
    large: LargeFile | None = None


class _Group:
    def __init__(self) -> None:
        self.entries: list[Entry] = []
        self.bytes = self.names = self.files = 0


class Planner:
    """Takes entries one by one and cuts them into parcels."""

    def __init__(self, strategy: Strategy, spool: Spool, fine: bool = False) -> None:
        """With `fine` parcels do not grow with the job: for one that is stopped again and again."""
        self._strategy = strategy
        self._fine = fine
        self._grouped = 0
        self._spool = spool
        self._groups = {ParcelKind.ZIP: _Group(), ParcelKind.FILE: _Group()}
        self._twins = _Group()
        self._cuts: Counter[ParcelKind] = Counter()
        self._large: list[LargeFile] = []
        self._numbers = itertools.count(1)
        self.parcels: list[Parcel] = []
        #: Parcels that may only be sent when all others have arrived: further names of files.
        self.last_parcels: list[Parcel] = []
        self.counts: Counter[str] = Counter()
        self.bytes = 0

    def add(self, entries: Iterable[Entry]) -> None:
        """Put entries where they belong."""
        auto, pack_all = self._strategy is Strategy.AUTO, self._packs_all
        zips, plain = self._groups[ParcelKind.ZIP], self._groups[ParcelKind.FILE]
        limits = {kind: self._limit(kind) for kind in self._groups}
        counts, total = {FILE: 0, FOLDER: 0, LINK: 0, TWIN: 0}, 0
        for entry in entries:
            size = entry.size
            counts[entry.kind] += 1
            if entry.kind == TWIN:
                self._twins.entries.append(entry)
                continue
            total += size
            if size >= LARGE and not pack_all and self._goes_alone(size, total):
                self._large.append(LargeFile(entry))
                continue
            if pack_all or (auto and (size < SMALL or entry.kind != FILE)):
                kind, group = ParcelKind.ZIP, zips
            else:
                kind, group = ParcelKind.FILE, plain
            full = group.bytes + size > limits[kind] or len(group.entries) >= PARCEL_ENTRIES
            if group.entries and (full or group.names >= PARCEL_NAMES):
                self._cut(kind)
                limits[kind] = self._limit(kind)
                zips, plain = self._groups[ParcelKind.ZIP], self._groups[ParcelKind.FILE]
                group = self._groups[kind]
            group.entries.append(entry)
            group.bytes += size
            group.names += len(entry.path) + len(entry.meta)
            group.files += entry.kind != FOLDER
        self.counts.update(counts)
        self.bytes += total

    def finish(self) -> None:
        """Cut what is left; large files are still to be planned, by `plan_large`."""
        for kind, group in self._groups.items():
            if group.entries:
                self._cut(kind)
        if self._strategy is Strategy.ARCHIVE and not self.parcels:
            self._cut(ParcelKind.ZIP)  # An archive of nothing is an archive, too.
        entries = self._twins.entries
        for at in range(0, len(entries), PARCEL_ENTRIES):
            part = entries[at : at + PARCEL_ENTRIES]
            block = self._spool.add(pack_entries(part))
            number = next(self._numbers)
            self.last_parcels.append(Parcel(number, ParcelKind.FILE, len(part), 0, block))

    def held(self, entries: list[Entry]) -> Parcel:
        """A parcel of what has arrived already; it is not among those to send."""
        files = sum(entry.kind != FOLDER for entry in entries)
        size = sum(entry.size for entry in entries if entry.kind != TWIN)
        block = self._spool.add(pack_entries(entries))
        return Parcel(next(self._numbers), ParcelKind.ZIP, files, size, block)

    def plan_large(
        self, streams: int, part_of: Callable[[Entry], dict[str, Any]], helpers: int = 0
    ) -> int:
        """Plan the large files for so many streams; return the bytes that need not be sent.

        `part_of` says what of a file has arrived, see `agent.resume.Survey`. With
        `helpers` what is too much to be lent as a whole goes in slices, too.
        """
        before = sum(parcel.bytes for parcel in self.parcels)
        least = self._slices_of_a_part(self.large_bytes)
        for large in self._large:
            entry = large.entry
            part = part_of(entry)
            shared = helpers and entry.size > PARCEL_BYTES[ParcelKind.FILE][1]
            if streams > 1 or shared or part.get("slices"):
                self._slice(large, streams + helpers, part, least)
            else:
                block = self._spool.add(pack_entries([entry]))
                upto = part.get("upto", 0)
                self._add(ParcelKind.FILE, 1, entry.size - upto, block, start=upto)
        planned = sum(large.entry.size for large in self._large)
        self._large = []
        return planned - (sum(parcel.bytes for parcel in self.parcels) - before)

    def put_largest_first(self) -> None:
        """Order the parcels for several streams: so these end at nearly the same time.

        It is R. L. Graham's rule of the longest processing time (1969). In the order
        in which they are cut the largest are last, and one stream outlasts the others.
        Slices of large files come behind: they are of one size.
        """
        self.parcels.sort(key=lambda parcel: -parcel.bytes - parcel.files * FILE_COSTS)

    @property
    def large_entries(self) -> list[Entry]:
        """The large files that are still to be planned."""
        return [large.entry for large in self._large]

    @property
    def large_bytes(self) -> int:
        """How many bytes the large files have that are still to be planned."""
        return sum(large.entry.size for large in self._large)

    def slice_again(self, large: LargeFile) -> list[Parcel]:
        """The parcels of a sliced file once more, for its content was not proven."""
        first = len(self.parcels)
        self._slice(large, 1, {}, self._slices_of_a_part(large.entry.size))
        again, self.parcels = self.parcels[first:], self.parcels[:first]
        return again

    def _slice(self, large: LargeFile, streams: int, part: dict[str, Any], least: int) -> None:
        """Cut parcels of some slices each, of `least` so many as far as there are."""
        entry = large.entry
        there = {at: size for at, size, _ in part.get("slices", ())}
        upto = part.get("upto", 0)
        slices = [(at, min(SLICE, entry.size - at)) for at in range(0, entry.size, SLICE)]
        missing = [(at, size) for at, size in slices if at + size > upto and there.get(at) != size]
        each = max(1, min(32, len(missing) // (streams * 4)), least)
        block = self._spool.add(pack_entries([entry]))
        for at in range(0, len(missing), each):
            part_of_them = tuple(missing[at : at + each])
            size = sum(length for _, length in part_of_them)
            self._add(ParcelKind.RANGE, 0, size, block, slices=part_of_them, large=large)
            large.parcels_left += 1
        if not missing:  # All is there: what is left is to prove the whole.
            self._add(ParcelKind.RANGE, 0, 0, block, large=large)
            large.parcels_left += 1

    @property
    def _packs_all(self) -> bool:
        return self._strategy in (Strategy.ZIP, Strategy.ARCHIVE)

    def _limit(self, kind: ParcelKind) -> int:
        least, most = PARCEL_BYTES[kind]
        growing = min(least << min(self._cuts[kind] // GROWS_EVERY, 32), most)
        return growing if self._fine else max(growing, self._grouped // PARTS)

    def _goes_alone(self, size: int, more: int) -> bool:
        few = self._fine or len(self._large) < ALONE
        return few or size >= (self.bytes + more) // PARTS

    def _slices_of_a_part(self, size: int) -> int:
        """How many slices a parcel should have at least where so many bytes go in slices."""
        return 0 if self._fine else min(size // (SLICE * PARTS), MOST_SLICES)

    @property
    def files(self) -> int:
        """How many entries are not folders."""
        return self.counts.total() - self.counts[FOLDER]

    def entries(self, parcel: Parcel) -> list[Entry]:
        """The entries of a parcel."""
        return unpack_entries(self._spool.get(parcel.block))

    def summary(self) -> dict[str, Any]:
        """The plan in figures and in a sentence."""
        kinds = Counter(parcel.kind.value for parcel in self.parcels + self.last_parcels)
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
            reasons.append(f"larger files, and fewer than {WORTH_PACKING} small ones, go as is")
        if kinds["range"]:
            reasons.append(f"files of {LARGE >> 20} MiB or more are sliced over the streams")
        return "; ".join(reasons)

    def _cut(self, kind: ParcelKind) -> None:
        """Make a parcel of a group and begin an empty one."""
        group = self._groups[kind]
        on_wire = kind
        if self._strategy is Strategy.ARCHIVE:
            on_wire = ParcelKind.ARCHIVE
        elif self._strategy is Strategy.AUTO and len(group.entries) < WORTH_PACKING:
            on_wire = ParcelKind.FILE
        self._cuts[kind] += 1
        self._grouped += group.bytes
        block = self._spool.add(pack_entries(group.entries))
        self._add(on_wire, group.files, group.bytes, block)
        self._groups[kind] = _Group()

    def _add(self, kind: ParcelKind, files: int, size: int, block: Block, **more: Any) -> None:
        number = next(self._numbers)
        self.parcels.append(Parcel(number, kind, files, size, block=block, **more))

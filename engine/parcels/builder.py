"""Cutting the entries of a transfer into parcels: which entry goes into which, and why."""

from __future__ import annotations

import itertools
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from typing import Any

from engine.agent.typed import NamedTuple
from engine.agent.wire import (
    FILE,
    FOLDER,
    HARD_LINK,
    LINK,
    LIST_BYTES,
    MAX_ENTRIES,
    Entry,
    pack_entries,
    unpack_entries,
)
from engine.parcels.hard_links import HardLinks
from engine.parcels.spool import Block, Spool
from engine.protocol.lists import weight_of
from engine.protocol.messages import FilePart
from engine.types import ParcelKind, Strategy

#: Files below this size (bytes) are small: a parcel packs them if it has enough of them.
SMALL = 1 << 20
#: A parcel of fewer entries than this is not packed into an archive.
WORTH_PACKING = 16
#: A file of at least this size (bytes) travels alone: in order, or as slices over several streams.
LARGE = 64 << 20
#: The bytes of a slice of a large file; both ends compare its digest as soon as it has arrived.
SLICE = 8 << 20

#: The limits (bytes) between which parcels grow, doubling every GROWS_EVERY parcels. Then they
#: grow with the planned bytes, of which each parcel gets one of PARTS. So a small transfer is
#: spread over its streams, and a large one, of any size, has only some thousand parcels.
PARCEL_BYTES = {ParcelKind.ZIP: (4 << 20, 64 << 20), ParcelKind.FILE: (8 << 20, 256 << 20)}
GROWS_EVERY = 16
PARTS = 384
#: The most slices of a parcel: its head has a list of them.
MOST_SLICES = 16 << 10
#: The most bytes of a plan's files that go in slices; other files go as a whole. A source that lies
#: about a file's size must not have the worker make slices until its memory is full.
MOST_SLICED = 32 << 40
#: So many large files travel alone in any case; more do if they are as large as a parcel.
ALONE = 1000
PARCEL_ENTRIES, PARCEL_NAMES = MAX_ENTRIES, LIST_BYTES
#: The cost of a file beside its content, as bytes that could travel in that time.
FILE_COSTS = 8 << 10


class LargeFile:
    """A file that travels in slices; `parcels_left` of its parcels are not proven yet."""

    def __init__(self, entry: Entry) -> None:
        self.entry = entry
        self.parcels_left = 0
        self.tries = 1
        self.failed = False


class Parcel(NamedTuple):
    """A bounded part of the tree; its list of entries lies in the plan's spool.

    `start` is the byte from which a single large file is sent, if its first part has arrived.
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


class _Limits:
    """The bytes that a parcel may have: more, the more parcels were cut."""

    def __init__(self, fine: bool) -> None:
        self._fine = fine
        self._cuts: Counter[ParcelKind] = Counter()
        self._bytes = 0

    def of(self, kind: ParcelKind) -> int:
        """The most bytes of the next parcel of a kind."""
        least, most = PARCEL_BYTES[kind]
        growing = min(least << min(self._cuts[kind] // GROWS_EVERY, 32), most)
        return growing if self._fine else max(growing, self._bytes // PARTS)

    def count(self, kind: ParcelKind, size: int) -> None:
        """Count a parcel that was cut."""
        self._cuts[kind] += 1
        self._bytes += size


class LargeFiles:
    """The large files of a plan: each gets parcels of its own, as a whole or in slices.

    With `fine` no file is put into a parcel with others, and parcels of slices do not grow with
    the size of the file.
    """

    def __init__(self, spool: Spool, numbers: Iterator[int], fine: bool) -> None:
        self._spool, self._numbers, self._fine = spool, numbers, fine
        self._waiting: list[LargeFile] = []

    def add(self, entry: Entry) -> None:
        """Keep a file until `plan`."""
        self._waiting.append(LargeFile(entry))

    def goes_alone(self, size: int, planned: int) -> bool:
        """True if a large file gets parcels of its own, in a plan of so many bytes up to it."""
        few = self._fine or len(self._waiting) < ALONE
        return few or size >= planned // PARTS

    @property
    def entries(self) -> list[Entry]:
        """The files that are still to be planned."""
        return [large.entry for large in self._waiting]

    @property
    def bytes(self) -> int:
        """The bytes of the files that are still to be planned."""
        return sum(large.entry.size for large in self._waiting)

    def plan(
        self, streams: int, part_of: Callable[[Entry], FilePart | None], helpers: int
    ) -> list[Parcel]:
        """Make the parcels of all files that wait; see `ParcelBuilder.plan_large`."""
        parcels: list[Parcel] = []
        least = self._least_slices(self.bytes)
        parts = [part_of(large.entry) for large in self._waiting]
        sliced = self._which_go_in_slices(parts, streams, helpers)
        for large, part, in_slices in zip(self._waiting, parts, sliced, strict=True):
            entry = large.entry
            if in_slices:
                parcels += self._slice(large, streams + helpers, part, least)
            else:
                block = self._spool.add(pack_entries([entry]))
                upto = part.upto if part else 0
                number = next(self._numbers)
                parcel = Parcel(number, ParcelKind.FILE, 1, entry.size - upto, block, start=upto)
                parcels.append(parcel)
        self._waiting = []
        return parcels

    def _which_go_in_slices(
        self, parts: list[FilePart | None], streams: int, helpers: int
    ) -> list[bool]:
        """Decide it for each file: no more than MOST_SLICED bytes do, the others go as a whole."""
        total, found = 0, []
        for large, part in zip(self._waiting, parts, strict=True):
            size = large.entry.size
            in_slices = total + size <= MOST_SLICED and (
                streams > 1
                or bool(part and part.slices)
                # Too large to be lent as a whole.
                or (helpers > 0 and size > PARCEL_BYTES[ParcelKind.FILE][1])
            )
            total += size if in_slices else 0
            found.append(in_slices)
        return found

    def slice_again(self, large: LargeFile) -> list[Parcel]:
        """Make the parcels of a sliced file again, because its content was not proven."""
        return self._slice(large, 1, None, self._least_slices(large.entry.size))

    def _slice(
        self, large: LargeFile, streams: int, part: FilePart | None, least: int
    ) -> list[Parcel]:
        """Cut the missing slices into parcels of `least` slices or more, as far as there are."""
        entry = large.entry
        upto = part.upto if part else 0
        there = _places(part.slices, entry.size) if part else set()
        slices = [(at, min(SLICE, entry.size - at)) for at in range(0, entry.size, SLICE)]
        missing = [(at, size) for at, size in slices if at + size > upto and at not in there]
        each = max(1, min(32, len(missing) // (streams * 4)), least)
        block = self._spool.add(pack_entries([entry]))
        groups = [tuple(missing[at : at + each]) for at in range(0, len(missing), each)]
        # If no slice is missing, an empty parcel stands for the proof of the whole file.
        parcels = [
            Parcel(
                next(self._numbers),
                ParcelKind.RANGE,
                0,
                sum(length for _, length in group),
                block,
                slices=group,
                large=large,
            )
            for group in groups or [()]
        ]
        large.parcels_left += len(parcels)
        return parcels

    def _least_slices(self, size: int) -> int:
        """The least slices of a parcel, if so many bytes go in slices."""
        return 0 if self._fine else min(size // (SLICE * PARTS), MOST_SLICES)


class ParcelBuilder:
    """Takes entries one by one and cuts them into parcels.

    With `fine` parcels do not grow with the transfer: for one that is stopped again and again.
    """

    def __init__(self, strategy: Strategy, spool: Spool, fine: bool = False) -> None:
        self._strategy = strategy
        self._spool = spool
        self._limits = _Limits(fine)
        self._groups = {ParcelKind.ZIP: _Group(), ParcelKind.FILE: _Group()}
        self._hard_links = HardLinks(spool)
        self._numbers = itertools.count(1)
        self._large = LargeFiles(spool, self._numbers, fine)
        self.parcels: list[Parcel] = []
        #: Parcels to send only when all others have arrived: further names of files.
        self.last_parcels: list[Parcel] = []
        self.counts: Counter[str] = Counter()
        self.bytes = 0

    def add(self, entries: Iterable[Entry]) -> None:
        """Put entries into the groups that become parcels."""
        auto = self._strategy is Strategy.AUTO
        pack_all = self._strategy in (Strategy.ZIP, Strategy.ARCHIVE)
        zips, plain = self._groups[ParcelKind.ZIP], self._groups[ParcelKind.FILE]
        limits = {kind: self._limits.of(kind) for kind in self._groups}
        counts, total = {FILE: 0, FOLDER: 0, LINK: 0, HARD_LINK: 0}, 0
        for entry in entries:
            size = entry.size
            counts[entry.kind] += 1
            if entry.kind == HARD_LINK:
                self._hard_links.add(entry)
                continue
            total += size
            if size >= LARGE and not pack_all and self._large.goes_alone(size, self.bytes + total):
                self._large.add(entry)
                continue
            if pack_all or (auto and (size < SMALL or entry.kind != FILE)):
                kind, group = ParcelKind.ZIP, zips
            else:
                kind, group = ParcelKind.FILE, plain
            full = group.bytes + size > limits[kind] or len(group.entries) >= PARCEL_ENTRIES
            if group.entries and (full or group.names >= PARCEL_NAMES):
                self._cut(kind)
                limits[kind] = self._limits.of(kind)
                zips, plain = self._groups[ParcelKind.ZIP], self._groups[ParcelKind.FILE]
                group = self._groups[kind]
            group.entries.append(entry)
            group.bytes += size
            group.names += weight_of(entry)
            group.files += entry.kind != FOLDER
        self.counts.update(counts)
        self.bytes += total

    def drop(self) -> None:
        """Forget all entries: none has to be sent."""
        self._groups = {ParcelKind.ZIP: _Group(), ParcelKind.FILE: _Group()}
        self.parcels.clear()
        self.counts.clear()

    def finish(self) -> None:
        """Cut the rest into parcels; `plan_large` is still to plan the large files."""
        for kind, group in self._groups.items():
            if group.entries:
                self._cut(kind)
        if self._strategy is Strategy.ARCHIVE and not self.parcels:
            self._cut(ParcelKind.ZIP)  # Even an empty source is delivered as an archive.
        for block, count in self._hard_links.lists():
            number = next(self._numbers)
            self.last_parcels.append(Parcel(number, ParcelKind.FILE, count, 0, block))

    def resumed(self, entries: list[Entry]) -> Parcel:
        """Make a parcel of entries that have arrived already; it is not among those to send."""
        files = sum(entry.kind != FOLDER for entry in entries)
        size = sum(entry.size for entry in entries if entry.kind != HARD_LINK)
        block = self._spool.add(pack_entries(entries))
        return Parcel(next(self._numbers), ParcelKind.ZIP, files, size, block)

    def plan_large(
        self, streams: int, part_of: Callable[[Entry], FilePart | None], helpers: int = 0
    ) -> int:
        """Plan the large files for so many streams; return the bytes that need not be sent.

        `part_of` returns the part of a file that has arrived, see `FilePart`. With `helpers` a
        file that is too large to be lent as a whole goes in slices, too.
        """
        planned = self._large.bytes
        parcels = self._large.plan(streams, part_of, helpers)
        self.parcels += parcels
        return planned - sum(parcel.bytes for parcel in parcels)

    def put_largest_first(self) -> None:
        """Order the parcels for several streams, so that these end at nearly the same time.

        It is R. L. Graham's rule of the longest processing time (1969). In the order of cutting,
        the largest parcels are last, and one stream outlasts the others. Slices of large files
        come behind all other parcels: they are of one size.
        """
        self.parcels.sort(key=lambda parcel: -parcel.bytes - parcel.files * FILE_COSTS)

    @property
    def large_entries(self) -> list[Entry]:
        """The large files that are still to be planned."""
        return self._large.entries

    @property
    def large_bytes(self) -> int:
        """The bytes of the large files that are still to be planned."""
        return self._large.bytes

    def slice_again(self, large: LargeFile) -> list[Parcel]:
        """Make the parcels of a sliced file again, because its content was not proven."""
        return self._large.slice_again(large)

    @property
    def files(self) -> int:
        """The number of entries that are not folders."""
        return self.counts.total() - self.counts[FOLDER]

    def entries(self, parcel: Parcel) -> list[Entry]:
        """The entries of a parcel."""
        return unpack_entries(self._spool.get(parcel.block))

    def summary(self) -> dict[str, Any]:
        """The plan in figures, and in a sentence."""
        kinds = Counter(parcel.kind.value for parcel in self.parcels + self.last_parcels)
        return {
            "files": self.files,
            "folders": self.counts[FOLDER],
            "bytes": self.bytes,
            "parcels": dict(kinds),
            "strategy": self._strategy.value,
            "why": _reason(self._strategy, kinds),
        }

    def _cut(self, kind: ParcelKind) -> None:
        """Make a parcel of a group and begin an empty one."""
        group = self._groups[kind]
        on_wire = kind
        if self._strategy is Strategy.ARCHIVE:
            on_wire = ParcelKind.ARCHIVE
        elif self._strategy is Strategy.AUTO and len(group.entries) < WORTH_PACKING:
            on_wire = ParcelKind.FILE
        self._limits.count(kind, group.bytes)
        block = self._spool.add(pack_entries(group.entries))
        number = next(self._numbers)
        self.parcels.append(Parcel(number, on_wire, group.files, group.bytes, block))
        self._groups[kind] = _Group()


def _reason(strategy: Strategy, kinds: Counter[str]) -> str:
    """The sentence that says why entries travel in these kinds of parcels."""
    if strategy is not Strategy.AUTO:
        return f"the strategy {strategy.value} was asked for"
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


def _places(runs: Iterable[tuple[int, int]], file_size: int) -> set[int]:
    """The places of all slices that lie as a whole in runs of bytes (offset, size)."""
    return {
        at
        for start, size in runs
        for at in range(start, start + size, SLICE)
        if at + min(SLICE, file_size - at) <= start + size
    }

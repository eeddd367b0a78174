"""Cutting a tree into parcels: nothing is lost, nothing is unbounded."""

from __future__ import annotations

import json
import random
from collections import Counter

import pytest

from engine import ParcelKind, Strategy
from engine.agent.wire import MAX_HEAD, Entry
from engine.parcels.builder import (
    FILE_COSTS,
    GROWS_EVERY,
    LARGE,
    MOST_SLICED,
    PARCEL_BYTES,
    PARCEL_ENTRIES,
    PARTS,
    SLICE,
    SMALL,
    Parcel,
    ParcelBuilder,
)
from engine.parcels.spool import Spool
from engine.protocol.messages import FilePart
from tests.rig.lanes import nightly


def planned(
    strategy: Strategy,
    sizes: list[int],
    streams: int = 1,
    parts: dict[str, FilePart] | None = None,
) -> ParcelBuilder:
    """A finished plan of files of these sizes; `parts` is what has arrived, by path."""
    planner = ParcelBuilder(strategy, Spool())
    planner.add(
        Entry(f"f{number}", "f", size, 0, 0o644, number) for number, size in enumerate(sizes)
    )
    planner.finish()
    planner.plan_large(streams, lambda entry: (parts or {}).get(entry.path))
    return planner


@pytest.mark.parametrize("streams", [1, 4])
@pytest.mark.parametrize("strategy", Strategy)
def test_every_entry_is_in_exactly_one_bounded_parcel(strategy: Strategy, streams: int) -> None:
    dice = random.Random(4)
    sizes = [int(10 ** dice.uniform(0, 9)) for _ in range(25_000)]

    planner = planned(strategy, sizes, streams)

    whole = [parcel for parcel in planner.parcels if not parcel.slices]
    sliced: dict[int, list[tuple[int, int]]] = {}
    for parcel in planner.parcels:
        if parcel.slices:
            (entry,) = planner.entries(parcel)
            sliced.setdefault(entry.ino, []).extend(parcel.slices)
    found = [entry.ino for parcel in whole for entry in planner.entries(parcel)]
    assert sorted(found + list(sliced)) == list(range(len(sizes)))
    for number, slices in sliced.items():
        assert_covered(slices, sizes[number])
    assert sum(parcel.bytes for parcel in planner.parcels) == planner.bytes == sum(sizes)
    assert sum(parcel.files for parcel in planner.parcels) + len(sliced) == planner.files
    for parcel in planner.parcels:
        assert_bounded(planner, parcel)


def assert_covered(slices: list[tuple[int, int]], size: int) -> None:
    """Fail unless slices make up a file, each byte once."""
    at = 0
    for start, length in sorted(slices):
        assert (start, 0 < length <= SLICE) == (at, True)
        at += length
    assert at == size


def assert_bounded(planner: ParcelBuilder, parcel: Parcel) -> None:
    """Fail if a parcel is larger than it may be."""
    entries = planner.entries(parcel)
    assert len(entries) <= PARCEL_ENTRIES
    if parcel.kind is ParcelKind.RANGE:
        assert len(parcel.slices) <= max(32, planner.bytes // (SLICE * PARTS))
    elif len(entries) > 1:
        # An archive that is delivered is cut as the archives on the wire are.
        kind = ParcelKind.FILE if parcel.kind is ParcelKind.FILE else ParcelKind.ZIP
        assert parcel.bytes <= max(PARCEL_BYTES[kind][1], planner.bytes // PARTS)


@pytest.mark.parametrize(
    ("strategy", "sizes", "kinds"),
    [
        (Strategy.AUTO, [10] * 2000, {"zip": 1}),
        (Strategy.AUTO, [10] * 3, {"file": 1}),
        (Strategy.AUTO, [SMALL], {"file": 1}),
        (Strategy.AUTO, [10] * 2000 + [SMALL] * 3, {"zip": 1, "file": 1}),
        (Strategy.AUTO, [SMALL] * 3 + [LARGE], {"file": 2}),
        (Strategy.ZIP, [10, SMALL], {"zip": 1}),
        (Strategy.FILES, [10] * 2000, {"file": 1}),
        (Strategy.ARCHIVE, [10] * 2000 + [SMALL], {"archive": 1}),
        (Strategy.AUTO, [], {}),
    ],
)
def test_the_kind_of_a_parcel_follows_from_file_sizes_and_counts(
    strategy: Strategy, sizes: list[int], kinds: dict[str, int]
) -> None:
    assert planned(strategy, sizes).summary()["parcels"] == kinds


@pytest.mark.parametrize(
    ("strategy", "kind"), [(Strategy.ZIP, ParcelKind.ZIP), (Strategy.FILES, ParcelKind.FILE)]
)
def test_parcels_start_small_and_grow_to_their_limit(strategy: Strategy, kind: ParcelKind) -> None:
    least, most = PARCEL_BYTES[kind]

    sizes = [parcel.bytes for parcel in planned(strategy, [SMALL] * 15_000).parcels]

    assert sizes[:GROWS_EVERY] == [least] * GROWS_EVERY
    assert sizes[GROWS_EVERY : 2 * GROWS_EVERY] == [2 * least] * GROWS_EVERY
    assert sizes[:-1] == sorted(sizes[:-1])
    assert max(sizes) == most


@pytest.mark.slow
@pytest.mark.parametrize("size", [0, nightly(10**6), 53 * 10**6, nightly(10**8)])
def test_a_million_files_make_fewer_than_4800_parcels_whatever_their_size(size: int) -> None:
    """Each is a row of the database."""
    spool = Spool()
    planner = ParcelBuilder(Strategy.AUTO, spool)
    entry = Entry("reel/frame.dpx", "f", size, 0, 0o644, 1)
    for _ in range(1000):
        planner.add([entry] * 1000)
    planner.finish()
    planner.plan_large(1, lambda entry: None)
    spool.close()

    assert planner.bytes == sum(parcel.bytes for parcel in planner.parcels) == size * 10**6
    assert len(planner.parcels) < 4800
    for parcel in planner.parcels:
        assert parcel.files <= PARCEL_ENTRIES
        most = max(PARCEL_BYTES[ParcelKind.FILE][1], planner.bytes // PARTS)
        assert parcel.bytes <= most


@pytest.mark.slow
def test_parcels_of_a_fine_grained_plan_do_not_grow_with_the_transfer() -> None:
    """What is under way when a line breaks is sent again."""
    entries = [Entry(f"{number}.mov", "f", 2 << 30, 0, 0o644, number) for number in range(4000)]
    entries += [Entry(f"{number}.dpx", "f", 12 << 20, 0, 0o644, number) for number in range(20_000)]
    largest = {}
    for fine in (False, True):
        planner = ParcelBuilder(Strategy.AUTO, Spool(), fine)
        planner.add(entries)
        planner.finish()
        planner.plan_large(4, lambda entry: None)
        largest[fine] = max(parcel.bytes for parcel in planner.parcels)

    assert largest[True] <= PARCEL_BYTES[ParcelKind.FILE][1] < largest[False]


def test_small_files_beside_a_very_large_one_are_in_small_parcels() -> None:
    planner = ParcelBuilder(Strategy.AUTO, Spool())
    planner.add([Entry("tape", "f", 10 << 40, 0, 0o644, 0)])
    planner.add(Entry(f"{number}", "f", 12 << 20, 0, 0o644, number) for number in range(2000))
    planner.finish()

    assert max(parcel.bytes for parcel in planner.parcels) <= PARCEL_BYTES[ParcelKind.FILE][1]


@pytest.mark.slow
@pytest.mark.parametrize(("count", "size"), [(1, 12 << 40), (1000, 12 << 30), nightly(30, 1 << 40)])
def test_sliced_large_files_make_a_bounded_number_of_parcels(count: int, size: int) -> None:
    planner = ParcelBuilder(Strategy.AUTO, Spool())
    planner.add(Entry(f"{number}.mov", "f", size, 0, 0o644, number) for number in range(count))
    planner.plan_large(4, lambda entry: None)

    assert planner.bytes == sum(parcel.bytes for parcel in planner.parcels) == size * count
    assert len(planner.parcels) <= PARTS + 2 * count
    assert max(len(json.dumps(parcel.slices)) for parcel in planner.parcels) < MAX_HEAD


def test_a_file_too_large_to_be_lent_is_planned_in_slices_when_helpers_may_join() -> None:
    sizes = [PARCEL_BYTES[ParcelKind.FILE][1] + extra for extra in (0, 1)]
    planner = ParcelBuilder(Strategy.AUTO, Spool())
    planner.add(
        Entry(f"f{number}", "f", size, 0, 0o644, number) for number, size in enumerate(sizes)
    )

    assert planner.plan_large(1, lambda entry: None, helpers=2) == 0

    whole, *slices = planner.parcels
    assert (whole.kind, whole.bytes) == (ParcelKind.FILE, sizes[0])
    assert {parcel.kind for parcel in slices} == {ParcelKind.RANGE}
    assert_covered([piece for parcel in slices for piece in parcel.slices], sizes[1])
    assert max(parcel.bytes for parcel in slices) * 8 <= sizes[1]


def test_put_largest_first_orders_parcels_by_falling_cost() -> None:
    planner = planned(Strategy.AUTO, [16 << 10] * 5000 + [3 << 20] * 9)
    cut = list(planner.parcels)

    planner.put_largest_first()

    assert sorted(planner.parcels) == sorted(cut)
    costs = [parcel.bytes + parcel.files * FILE_COSTS for parcel in planner.parcels]
    assert costs == sorted(costs, reverse=True) != [c.bytes + c.files * FILE_COSTS for c in cut]


def test_a_large_file_travels_alone_over_one_stream_and_in_slices_over_several() -> None:
    sizes = [SMALL, LARGE, LARGE + 1, LARGE - 1]

    alone, sliced = planned(Strategy.AUTO, sizes), planned(Strategy.AUTO, sizes, streams=4)

    large = ["f1", "f2"]
    assert [parcel.bytes for parcel in alone.parcels if large_path(alone, parcel) in large] == [
        LARGE,
        LARGE + 1,
    ]
    assert not any(parcel.slices for parcel in alone.parcels)
    slices = [parcel for parcel in sliced.parcels if parcel.slices]
    assert {large_path(sliced, parcel) for parcel in slices} == set(large)
    files = {parcel.large for parcel in slices if parcel.large}
    assert sum(file.parcels_left for file in files) == len(slices)


def large_path(planner: ParcelBuilder, parcel: Parcel) -> str:
    """The path of the file that is alone in a parcel, or nothing."""
    entries = planner.entries(parcel)
    return entries[0].path if len(entries) == 1 else ""


def arrived(*slices: tuple[int, int], upto: int = 0) -> FilePart:
    """What has arrived of the large file."""
    return FilePart("f0", LARGE, 0, 0, upto, slices)


@pytest.mark.parametrize("size", [1 << 62, MOST_SLICED + 1])
def test_a_file_beyond_the_limit_of_slices_goes_as_a_whole(size: int) -> None:
    """A source that reports such a size may lie: millions of slices would fill the memory."""
    planner = planned(Strategy.AUTO, [LARGE, size], 2)

    wholes = [parcel for parcel in planner.parcels if parcel.kind is ParcelKind.FILE]
    assert [parcel.bytes for parcel in wholes] == [size]
    assert sum(parcel.bytes for parcel in planner.parcels) == LARGE + size
    assert len(planner.parcels) < 20


def test_the_limit_of_slices_is_that_of_all_files_together(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("engine.parcels.builder.MOST_SLICED", 3 * LARGE)

    planner = planned(Strategy.AUTO, [LARGE] * 5, 2)

    kinds = Counter(parcel.kind for parcel in planner.parcels)
    assert kinds[ParcelKind.FILE] == 2
    assert sum(parcel.bytes for parcel in planner.parcels) == 5 * LARGE


@pytest.mark.parametrize("helpers", [0, 2])
def test_in_one_stream_a_file_may_be_of_any_size(helpers: int) -> None:
    planner = ParcelBuilder(Strategy.AUTO, Spool())
    planner.add([Entry("f0", "f", 1 << 62, 0, 0o644, 0)])
    planner.finish()
    planner.plan_large(1, lambda _: None, helpers)

    assert [(parcel.kind, parcel.bytes) for parcel in planner.parcels] == [
        (ParcelKind.FILE, 1 << 62)
    ]


def test_the_delivered_slices_of_too_large_a_file_are_sent_again() -> None:
    part = FilePart("f0", 1 << 62, 0, 0, 0, ((0, SLICE),))

    planner = planned(Strategy.AUTO, [1 << 62], 1, {"f0": part})

    assert [(parcel.kind, parcel.bytes) for parcel in planner.parcels] == [
        (ParcelKind.FILE, 1 << 62)
    ]


@pytest.mark.parametrize(
    ("streams", "part", "left"),
    [
        (1, arrived(upto=48 << 20), (LARGE - (48 << 20))),
        (4, arrived(upto=48 << 20), (LARGE - (48 << 20))),
        (1, arrived((0, SLICE), (3 * SLICE, SLICE)), LARGE - 2 * SLICE),
        (4, arrived((0, SLICE), (3 * SLICE, SLICE)), LARGE - 2 * SLICE),
        (4, arrived((0, 3 * SLICE), (4 * SLICE, 2 * SLICE)), LARGE - 5 * SLICE),
        (4, arrived((0, LARGE)), 0),
        (4, arrived((0, SLICE - 1)), LARGE),  # Less than a slice: of no use.
        (4, arrived((1, SLICE)), LARGE),
    ],
)
def test_only_the_missing_bytes_of_a_large_file_are_planned(
    streams: int, part: FilePart, left: int
) -> None:
    planner = planned(Strategy.AUTO, [LARGE], streams, {"f0": part})

    assert sum(parcel.bytes for parcel in planner.parcels) == left
    assert planner.parcels  # Though nothing is missing, the whole is still to be proven.
    assert planner.plan_large(streams, lambda _: None) == 0

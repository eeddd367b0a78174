"""Cutting a tree into parcels: nothing is lost, nothing is unbounded."""

from __future__ import annotations

import random

import pytest

from engine import Strategy
from engine.agent.wire import Entry
from engine.plan import PARCEL_BYTES, PARCEL_ENTRIES, SMALL, Planner


def planned(strategy: Strategy, sizes: list[int]) -> Planner:
    planner = Planner(strategy)
    for number, size in enumerate(sizes):
        planner.add(Entry(f"f{number}", "f", size, 0, 0o644, number))
    planner.finish()
    return planner


@pytest.mark.parametrize("strategy", Strategy)
def test_every_entry_is_in_exactly_one_bounded_parcel(strategy: Strategy) -> None:
    dice = random.Random(4)
    sizes = [int(10 ** dice.uniform(0, 9)) for _ in range(25_000)]

    planner = planned(strategy, sizes)

    found = [entry.ino for parcel in planner.parcels for entry in parcel.entries()]
    assert sorted(found) == list(range(len(sizes)))
    assert sum(parcel.bytes for parcel in planner.parcels) == planner.bytes == sum(sizes)
    assert sum(parcel.files for parcel in planner.parcels) == planner.files
    for parcel in planner.parcels:
        entries = parcel.entries()
        assert len(entries) <= PARCEL_ENTRIES
        assert len(entries) == 1 or parcel.bytes <= PARCEL_BYTES[parcel.kind]


@pytest.mark.parametrize(
    ("strategy", "sizes", "kinds"),
    [
        (Strategy.AUTO, [10] * 2000, {"zip": 1}),
        (Strategy.AUTO, [10] * 3, {"file": 1}),
        (Strategy.AUTO, [SMALL], {"file": 1}),
        (Strategy.AUTO, [10] * 2000 + [SMALL] * 3, {"zip": 1, "file": 1}),
        (Strategy.ZIP, [10, SMALL], {"zip": 1}),
        (Strategy.FILES, [10] * 2000, {"file": 1}),
        (Strategy.AUTO, [], {}),
    ],
)
def test_the_kind_follows_from_sizes_and_counts(
    strategy: Strategy, sizes: list[int], kinds: dict[str, int]
) -> None:
    assert planned(strategy, sizes).summary()["parcels"] == kinds

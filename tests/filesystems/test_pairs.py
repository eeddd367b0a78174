"""Each file system as the source with each as the target; nightly."""

from __future__ import annotations

import itertools
import tempfile
from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path

import pytest

from tests.filesystems.kinds import DISKS, FUSE, SOURCE, TARGET, missing, mounted
from tests.filesystems.places import Place, build

#: A shim stands at one end only, so the pairs are of those that are mounted.
REAL = {name: kind for name, kind in {**DISKS, **FUSE}.items() if not kind.below}
PAIRS = [
    (one, other)
    for one, other in itertools.product(REAL, REAL)
    if SOURCE in REAL[one].roles and TARGET in REAL[other].roles
]

pytestmark = [pytest.mark.slow, pytest.mark.nightly, pytest.mark.xdist_group("mounts-pairs")]


@pytest.fixture(params=PAIRS, ids=lambda pair: "-to-".join(pair).replace(" ", "_"))
def place(request: pytest.FixtureRequest) -> Iterator[Place]:
    source, target = (REAL[name] for name in request.param)
    for kind in (source, target):
        if reason := missing(kind):
            pytest.skip(reason)
    with tempfile.TemporaryDirectory(prefix="ketter-disk-") as made, ExitStack() as stack:
        here, there = Path(made) / "source", Path(made) / "target"
        for folder in (here, there):
            folder.mkdir()
        a = stack.enter_context(mounted(source, here, lambda back: build(back / "a", source)))
        b = stack.enter_context(mounted(target, there))
        both = replace(
            target,
            modes=source.modes and target.modes,
            grain=max(source.grain, target.grain),
            symlinks=target.symlinks or not source.symlinks,
            read_only=source.read_only,
        )
        place = Place(both, TARGET, b, a, stack)
        if not source.read_only:
            build(place.source, source)
        yield place


def test_a_copy_from_each_to_each_arrives_and_the_same_again_sends_nothing(place: Place) -> None:
    before = place.given_away()
    status = 0 if place.kind.symlinks else 3

    first, again = place.run(), place.run()

    assert (first.status, again.status) == (status, status), (first, again)
    place.assert_arrived(before)
    place.assert_no_debris()
    assert again.result["files"] == 0, again

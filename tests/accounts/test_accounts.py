"""One contract, every far account: as source and as target it has the outcome that its row says."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest

from engine import Endpoint
from tests.accounts.conftest import build, judge
from tests.accounts.far_host import FarHost, missing
from tests.accounts.rows import ROWS

pytestmark = [
    pytest.mark.xdist_group("far accounts"),
    pytest.mark.skipif(bool(missing()), reason=missing() or "-"),
]


@pytest.fixture(scope="module")
def far() -> Iterator[FarHost]:
    with FarHost({name: row.account for name, row in ROWS.items()}) as host:
        yield host


def cases() -> list[object]:
    """Both ends of what works; one end of what ends, in turn, and the other one nightly."""
    found = []
    for number, (name, row) in enumerate(ROWS.items()):
        for end in ("source", "target"):
            one = ("source", "target")[number % 2]
            late = row.nightly or (row.outcome.code != "" and end != one)
            marks = [pytest.mark.nightly] if late else []
            found.append(pytest.param(name, end, marks=marks, id=f"{name}-{end}"))
    return found


@pytest.mark.usefixtures("scratch")
@pytest.mark.parametrize(("name", "end"), cases())
def test_a_far_account_has_the_outcome_of_its_row(
    far: FarHost, tmp_path: Path, name: str, end: str
) -> None:
    shell = ROWS[name].account.shell
    assert shutil.which("busybox"), "busybox is not installed: run deploy/test.sh as root once"
    assert shell.startswith("~") or Path(shell).exists(), f"{shell} is not installed: likewise"
    place = far.place(name)
    here, there = tmp_path / "tree", place / end
    at = (there, here) if end == "source" else (here, there)
    build(at[0])
    far.give(place, name)

    ends = Endpoint(str(tmp_path), "tree"), far.endpoint(name, end)
    source, target = ends if end == "target" else ends[::-1]
    judge(source, target, at, ROWS[name].outcome, far.pid)

"""What is at the target already: policies, the plan that tells of it, content that decides."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import pytest

import engine
from engine import Mode, OnConflict, Request
from tests.engine.conftest import Run, endpoint
from tests.rig.trees import assert_equal_trees, build_small

OLD, NEW = 1_500_000_000_000_000_000, 1_600_000_000_000_000_000


def put(path: Path, content: str, mtime_ns: int = NEW) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(content)
    os.utime(path, ns=(mtime_ns, mtime_ns))


def plan(tmp_path: Path, **options: Any) -> dict[str, Any]:
    request = Request(endpoint(tmp_path / "a"), endpoint(tmp_path / "b"), "test", **options)
    return engine.dry_run(request)


@pytest.fixture
def both(tmp_path: Path) -> Path:
    """Three files that are at both ends: an older, a newer and an equal one; and one of its own."""
    put(tmp_path / "a" / "grown", "ours, longer", NEW)
    put(tmp_path / "b" / "grown", "theirs", OLD)
    put(tmp_path / "a" / "shrunk", "ours", OLD)
    put(tmp_path / "b" / "shrunk", "theirs, longer", NEW)
    for side in "ab":
        put(tmp_path / side / "equal", "the same", NEW)
    put(tmp_path / "a" / "fresh", "ours", NEW)
    return tmp_path


def contents(folder: Path) -> dict[str, str]:
    return {path.name: path.read_text() for path in folder.iterdir()}


EXPECTED = {
    OnConflict.SKIP: {"grown": "theirs", "shrunk": "theirs, longer"},
    OnConflict.OVERWRITE: {"grown": "ours, longer", "shrunk": "ours"},
    OnConflict.OVERWRITE_OLDER: {"grown": "ours, longer", "shrunk": "theirs, longer"},
    OnConflict.KEEP_BOTH: {
        "grown": "theirs",
        "grown (2)": "ours, longer",
        "shrunk": "theirs, longer",
        "shrunk (2)": "ours",
    },
}


@pytest.mark.parametrize("policy", EXPECTED, ids=str)
def test_a_policy_decides_about_what_is_different(both: Path, run: Run, policy: OnConflict) -> None:
    report = run(on_conflict=policy)

    assert report.status == "done"
    assert contents(both / "b") == {"equal": "the same", "fresh": "ours", **EXPECTED[policy]}


def test_by_default_nothing_is_sent_where_something_is_different(both: Path, run: Run) -> None:
    before = contents(both / "b")

    with pytest.raises(engine.TargetExists) as caught:
        run()

    assert "grown, shrunk" in str(caught.value)
    assert contents(both / "b") == before


@pytest.mark.parametrize("policy", [OnConflict.SKIP, OnConflict.OVERWRITE_OLDER], ids=str)
def test_a_move_leaves_what_was_not_delivered(both: Path, run: Run, policy: OnConflict) -> None:
    run(mode=Mode.MOVE, on_conflict=policy)

    left = {OnConflict.SKIP: {"grown", "shrunk"}, OnConflict.OVERWRITE_OLDER: {"shrunk"}}
    assert set(contents(both / "a")) == left[policy]


def test_the_plan_tells_what_is_there_and_what_would_happen(both: Path) -> None:
    before = contents(both / "b")

    refused, replaced = plan(both), plan(both, on_conflict=OnConflict.OVERWRITE_OLDER)

    assert (refused["files"], refused["skipped"], refused["conflicts"]) == (1, 1, 2)
    assert refused["conflict_names"] == ["grown", "shrunk"]
    assert (replaced["files"], replaced["replaced"], replaced["conflicts"]) == (2, 1, 0)
    assert refused["free_bytes"] > 0
    assert "free_inodes" in refused
    assert contents(both / "b") == before


def test_content_decides_and_not_times_where_that_is_asked_for(tmp_path: Path, run: Run) -> None:
    put(tmp_path / "a" / "copied without its time", "the same", NEW)
    put(tmp_path / "b" / "copied without its time", "the same", OLD)
    put(tmp_path / "a" / "same size and time", "one", NEW)
    put(tmp_path / "b" / "same size and time", "two", NEW)

    report = run(checksum=True, on_conflict=OnConflict.OVERWRITE)

    assert (report.files, report.files_skipped) == (1, 1)
    assert (tmp_path / "b" / "same size and time").read_text() == "one"


def test_without_that_size_and_time_decide(tmp_path: Path, run: Run) -> None:
    put(tmp_path / "a" / "same size and time", "one", NEW)
    put(tmp_path / "b" / "same size and time", "two", NEW)

    report = run(on_conflict=OnConflict.OVERWRITE)

    assert (report.files, report.files_skipped) == (0, 1)


def test_a_second_run_sends_nothing(tmp_path: Path, run: Run) -> None:
    build_small(tmp_path / "a", 300)
    run()

    report = run(on_conflict=OnConflict.SKIP)

    assert (report.status, report.bytes, report.files, report.files_skipped) == ("done", 0, 0, 300)
    assert_equal_trees(tmp_path / "a", tmp_path / "b")


def test_a_folder_is_never_replaced_by_a_file_nor_a_file_by_a_folder(
    tmp_path: Path, run: Run
) -> None:
    put(tmp_path / "a" / "one", "a file")
    put(tmp_path / "b" / "one" / "inside", "kept")
    put(tmp_path / "a" / "two" / "inside", "a folder")
    put(tmp_path / "b" / "two", "kept")

    with pytest.raises(engine.TargetExists):
        run(on_conflict=OnConflict.OVERWRITE)

    assert (tmp_path / "b" / "one" / "inside").read_text() == "kept"
    assert (tmp_path / "b" / "two").read_text() == "kept"

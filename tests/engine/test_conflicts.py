"""What is at the target already: policies, the plan that tells of it, content that decides."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

import engine
from engine import Mode, OnConflict, Request
from tests.rig.transfers import Run, endpoint
from tests.rig.trees import assert_equal_trees, build_mixed, build_small, put, snapshot

OLD, NEW = 1_500_000_000_000_000_000, 1_600_000_000_000_000_000


def plan(tmp_path: Path, **options: Any) -> dict[str, Any]:
    request = Request(endpoint(tmp_path / "a"), endpoint(tmp_path / "b"), "test", **options)
    return engine.dry_run(request)


@pytest.fixture
def both(tmp_path: Path) -> Path:
    """Three files that are at both ends: an older, a newer and an equal one; and one of its own."""
    put(tmp_path / "a" / "grown.mov", "ours, longer", NEW)
    put(tmp_path / "b" / "grown.mov", "theirs", OLD)
    put(tmp_path / "a" / "shrunk.mov", "ours", OLD)
    put(tmp_path / "b" / "shrunk.mov", "theirs, longer", NEW)
    for side in "ab":
        put(tmp_path / side / "equal", "the same", NEW)
    put(tmp_path / "a" / "fresh", "ours", NEW)
    return tmp_path


def contents(folder: Path) -> dict[str, str]:
    return {path.name: path.read_text() for path in folder.iterdir()}


EXPECTED = {
    OnConflict.SKIP: {"grown.mov": "theirs", "shrunk.mov": "theirs, longer"},
    OnConflict.OVERWRITE: {"grown.mov": "ours, longer", "shrunk.mov": "ours"},
    OnConflict.OVERWRITE_OLDER: {"grown.mov": "ours, longer", "shrunk.mov": "theirs, longer"},
    OnConflict.KEEP_BOTH: {
        "grown.mov": "theirs",
        "grown (2).mov": "ours, longer",
        "shrunk.mov": "theirs, longer",
        "shrunk (2).mov": "ours",
    },
}


@pytest.mark.parametrize("policy", EXPECTED, ids=str)
def test_the_conflict_policy_decides_which_of_two_different_files_stays_in_each_run(
    both: Path, run: Run, policy: OnConflict
) -> None:
    for _ in range(2):  # The second run finds what the first one has made, and adds nothing.
        report = run(on_conflict=policy)

        assert report.status == "done"
        assert contents(both / "b") == {"equal": "the same", "fresh": "ours", **EXPECTED[policy]}


def test_a_transfer_with_conflicts_is_refused_and_sends_nothing_by_default(
    both: Path, run: Run
) -> None:
    before = contents(both / "b")

    with pytest.raises(engine.TargetExists) as caught:
        run()

    assert "grown.mov, shrunk.mov" in str(caught.value)
    assert contents(both / "b") == before


@pytest.mark.parametrize("policy", [OnConflict.SKIP, OnConflict.OVERWRITE_OLDER], ids=str)
def test_a_move_keeps_source_files_that_the_policy_did_not_deliver(
    both: Path, run: Run, policy: OnConflict
) -> None:
    run(mode=Mode.MOVE, on_conflict=policy)

    left = {
        OnConflict.SKIP: {"grown.mov", "shrunk.mov"},
        OnConflict.OVERWRITE_OLDER: {"shrunk.mov"},
    }
    assert set(contents(both / "a")) == left[policy]


def test_a_dry_run_counts_skipped_replaced_and_conflicting_files(both: Path) -> None:
    before = contents(both / "b")

    refused, replaced = plan(both), plan(both, on_conflict=OnConflict.OVERWRITE_OLDER)

    assert (refused["files"], refused["skipped"], refused["conflicts"]) == (1, 1, 2)
    assert refused["conflict_names"] == ["grown.mov", "shrunk.mov"]
    assert (replaced["files"], replaced["replaced"], replaced["conflicts"]) == (2, 1, 0)
    assert refused["free_bytes"] > 0
    assert "free_inodes" in refused
    assert contents(both / "b") == before


@pytest.mark.parametrize(
    ("checksum", "sent", "content"),
    [(False, "copied without its time", "two"), (True, "same size and time", "one")],
)
def test_a_file_is_compared_by_content_with_checksum_and_by_size_and_time_without(
    tmp_path: Path, run: Run, checksum: bool, sent: str, content: str
) -> None:
    put(tmp_path / "a" / "copied without its time", "the same", NEW)
    put(tmp_path / "b" / "copied without its time", "the same", OLD)
    put(tmp_path / "a" / "same size and time", "one", NEW)
    put(tmp_path / "b" / "same size and time", "two", NEW)

    with pytest.raises(engine.TargetExists, match=sent):
        run(checksum=checksum)
    report = run(checksum=checksum, on_conflict=OnConflict.OVERWRITE)

    assert (report.status, report.files, report.files_skipped) == ("done", 1, 1)
    assert (tmp_path / "b" / "same size and time").read_text() == content


def build_300(root: Path) -> None:
    build_small(root, 300)


@pytest.mark.parametrize(
    ("build", "options", "files"),
    [(build_mixed, {}, 17), (build_300, {"on_conflict": OnConflict.SKIP}, 300)],
)
def test_a_second_run_of_an_unchanged_tree_sends_nothing(
    tmp_path: Path,
    run: Run,
    build: Callable[[Path], None],
    options: dict[str, OnConflict],
    files: int,
) -> None:
    build(tmp_path / "a")
    run()

    report = run(**options)

    assert report.status == "done"
    assert (report.bytes, report.files, report.files_skipped) == (0, 0, files)
    assert_equal_trees(tmp_path / "a", tmp_path / "b")


@pytest.mark.parametrize(
    ("ours", "theirs"),
    [("one", "one/inside"), ("one/inside", "one"), ("one", "one/")],
    ids=["a folder", "a file", "an empty folder"],
)
def test_overwrite_never_replaces_a_folder_by_a_file_nor_a_file_by_a_folder(
    tmp_path: Path, run: Run, ours: str, theirs: str
) -> None:
    put(tmp_path / "a" / ours, "ours")
    if theirs.endswith("/"):
        (tmp_path / "b" / theirs).mkdir(parents=True)
    else:
        put(tmp_path / "b" / theirs, "kept")
    before = snapshot(tmp_path / "b")

    with pytest.raises(engine.TargetExists):
        run(on_conflict=OnConflict.OVERWRITE)

    assert snapshot(tmp_path / "b") == before

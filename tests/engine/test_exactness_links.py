"""Hard links and symlinks: kept, separated, skipped or followed, and what else they can do."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

import engine
from engine import Mode, OnConflict, Strategy
from tests.engine.exactness import (
    STRATEGIES,
    assert_only_specials_failed,
    shown,
    specials,
    to_arrive,
    with_folders_above,
)
from tests.rig.hard_tree import (
    TOP,
    Description,
    assert_same,
    build_hard,
    describe,
)
from tests.rig.observers import Listener
from tests.rig.transfers import Run

pytestmark = pytest.mark.usefixtures("leave_no_hard_tree")


@pytest.mark.parametrize("streams", [1, 3])
@pytest.mark.parametrize("mode", Mode)
@pytest.mark.parametrize("strategy", STRATEGIES)
def test_hard_links_arrive_as_hard_links_with_the_keep_option(
    tmp_path: Path, run: Run, strategy: Strategy, mode: Mode, streams: int
) -> None:
    build_hard(tmp_path / "a")
    _link_across(tmp_path / "a")
    before = describe(tmp_path / "a")

    report = run(strategy=strategy, mode=mode, streams=streams, hard_links=engine.HardLinks.KEEP)

    assert_only_specials_failed(report, before)
    assert_same(to_arrive(before, hard_links=True), describe(tmp_path / "b"))
    if mode is Mode.MOVE:
        assert set(describe(tmp_path / "a")) == with_folders_above(specials(before))


@pytest.mark.parametrize("mode", Mode)
def test_a_second_run_with_kept_hard_links_sends_nothing(
    tmp_path: Path, run: Run, mode: Mode
) -> None:
    build_hard(tmp_path / "a", special=False)
    before = describe(tmp_path / "a")
    run(hard_links=engine.HardLinks.KEEP)

    report = run(hard_links=engine.HardLinks.KEEP, mode=mode)

    assert (report.status, report.files) == ("done", 0)
    found = describe(tmp_path / "b")
    found[TOP] = found[TOP]._replace(mtime_ns=before[TOP].mtime_ns)
    assert_same(to_arrive(before, hard_links=True), found)
    if mode is Mode.MOVE:
        assert set(describe(tmp_path / "a")) == {TOP}


def _link_across(root: Path) -> None:
    """Names of one file far from each other, so that they go in different parcels."""
    for folder in ("first", "last"):
        (root / f"{folder} of links").mkdir()
    for number in range(40):
        name = f"{number:02}"
        (root / "first of links" / name).write_bytes(name.encode() * (1 << number % 21))
        os.link(root / "first of links" / name, root / "last of links" / f"also {name}")


def test_hard_links_whose_first_name_is_excluded_stay_linked_to_each_other(
    tmp_path: Path, run: Run
) -> None:
    (tmp_path / "a").mkdir()
    for name, content in (("1", b"left out"), ("4", b"alone")):
        (tmp_path / "a" / name).write_bytes(content)
    for name in "23":
        os.link(tmp_path / "a" / "1", tmp_path / "a" / name)
    before = describe(tmp_path / "a")

    run(hard_links=engine.HardLinks.KEEP, filters=(("exclude", "1"),), mode=Mode.MOVE)

    found = describe(tmp_path / "b")
    assert set(found) == {TOP, b"2", b"3", b"4"}
    assert found[b"2"] == before[b"2"]._replace(hard_links=(b"3",))
    assert os.listdir(tmp_path / "a") == ["1"]


def test_copied_hard_links_give_one_warning_and_arrive_as_separate_files(
    tmp_path: Path, run: Run
) -> None:
    build_hard(tmp_path / "a", special=False)
    listener = Listener()

    report = run(listener, hard_links=engine.HardLinks.COPY)

    assert report.status == "done"
    assert [code for code, _, _ in listener.events].count("HARD_LINKS") == 1
    assert not any(facts.hard_links for facts in describe(tmp_path / "b").values())


def test_a_tree_without_hard_links_gives_no_hard_link_warning(tmp_path: Path, run: Run) -> None:
    (tmp_path / "a").mkdir()
    (tmp_path / "a" / "one").write_bytes(b"frames")
    listener = Listener()

    run(listener)

    assert "HARD_LINKS" not in [code for code, _, _ in listener.events]


@pytest.mark.parametrize("mode", Mode)
@pytest.mark.parametrize("strategy", STRATEGIES)
def test_a_new_hard_link_to_an_already_delivered_file_arrives(
    tmp_path: Path, run: Run, strategy: Strategy, mode: Mode
) -> None:
    (tmp_path / "a").mkdir()
    (tmp_path / "a" / "one").write_bytes(b"frames")
    run(hard_links=engine.HardLinks.KEEP)
    for name in ("two", "three"):
        os.link(tmp_path / "a" / "one", tmp_path / "a" / name)
    before = describe(tmp_path / "a")

    report = run(hard_links=engine.HardLinks.KEEP, strategy=strategy, mode=mode)

    assert (report.status, report.failures) == ("done", ())
    found = describe(tmp_path / "b")
    assert_same(before, found, ignore=["mtime_ns"])
    assert found[b"two"].mtime_ns == before[b"two"].mtime_ns


@pytest.mark.parametrize("strategy", STRATEGIES)
def test_the_hard_links_of_a_changed_file_become_links_to_the_new_file(
    tmp_path: Path, run: Run, strategy: Strategy
) -> None:
    build_hard(tmp_path / "a", special=False)
    run(hard_links=engine.HardLinks.KEEP)
    for name in ("small", "large"):
        (tmp_path / "a" / "hard" / "one" / name).write_bytes(b"changed")
    before = describe(tmp_path / "a")

    report = run(
        hard_links=engine.HardLinks.KEEP, strategy=strategy, on_conflict=OnConflict.OVERWRITE
    )

    assert (report.status, report.failures) == ("done", ())
    assert_same(to_arrive(before, hard_links=True), describe(tmp_path / "b"), ignore=["mtime_ns"])


@pytest.mark.parametrize("mode", Mode)
@pytest.mark.parametrize("strategy", STRATEGIES)
def test_skipped_symlinks_stay_where_they_are(
    tmp_path: Path, run: Run, strategy: Strategy, mode: Mode
) -> None:
    build_hard(tmp_path / "a")
    before = describe(tmp_path / "a")
    links = {path for path, facts in before.items() if facts.kind == "link"}

    run(strategy=strategy, mode=mode, symlinks=engine.Symlinks.SKIP)

    without = {path: facts for path, facts in before.items() if path not in links}
    assert_same(to_arrive(without), describe(tmp_path / "b"))
    left = describe(tmp_path / "a")
    if mode is Mode.MOVE:
        assert set(left) == with_folders_above(links | specials(before))
    for path in links:
        assert left[path] == before[path]


#: Links of `_tree_with_links` that lead out, to nothing, to themselves, or to where they lie.
UNFOLLOWED = {"out", "out, absolute", "broken", "loop", "pair 1", "pair 2", "to the top"}


def _tree_with_links(root: Path) -> None:
    """Links that can be followed, and links that cannot; `outside` lies beside the tree."""
    (root / "real" / "inner").mkdir(parents=True)
    (root / "real" / "clip").write_bytes(b"frames")
    (root / "real" / "inner" / "deep").write_bytes(b"deep")
    (root / "real" / "inner").chmod(0o750)
    (root / "real" / "clip").chmod(0o640)
    (root.parent / "outside").write_bytes(b"not ours")
    followed = {
        "to file": "real/clip",
        "to folder": "real",
        "to link": "to file",
        "absolute": f"{root}/real/clip",
    }
    others = {
        "out": "../outside",
        "out, absolute": "/etc/passwd",
        "broken": "nothing",
        "loop": "loop",
        "pair 1": "pair 2",
        "pair 2": "pair 1",
        "to the top": ".",
        "real/to above": "..",
        "real/inner/to itself": "../inner",
        "to pipe": "pipe",
    }
    os.mkfifo(root / "pipe")
    for name, target in {**followed, **others}.items():
        (root / name).symlink_to(target)
    for path in sorted(root.rglob("*"), reverse=True):
        os.utime(path, ns=(5, 5), follow_symlinks=False)


def as_followed(before: Description) -> Description:
    """What must arrive of `_tree_with_links` if links are followed."""
    expected = {path: facts for path, facts in before.items() if facts.kind in ("file", "folder")}
    for name in (b"to file", b"to link", b"absolute"):
        expected[name] = before[b"real/clip"]
    for name in (b"", b"/clip", b"/inner", b"/inner/deep"):
        expected[b"to folder" + name] = before[b"real" + name]
    return expected


@pytest.mark.parametrize("streams", [1, 3])
@pytest.mark.parametrize("strategy", STRATEGIES)
def test_followed_symlinks_arrive_as_what_they_lead_to(
    tmp_path: Path, run: Run, strategy: Strategy, streams: int
) -> None:
    _tree_with_links(tmp_path / "a")
    before = describe(tmp_path / "a")

    report = run(strategy=strategy, streams=streams, symlinks=engine.Symlinks.FOLLOW)

    assert_same(as_followed(before), describe(tmp_path / "b"))
    named = {failure.path for failure in report.failures}
    assert named >= UNFOLLOWED | {"real/to above", "real/inner/to itself", "pipe", "to pipe"}
    assert not any(shown(path) in named for path in as_followed(before))
    assert report.status == "partial"
    assert_same(before, describe(tmp_path / "a"))


def test_following_symlinks_of_the_awkward_tree_ends_and_delivers_no_links(
    tmp_path: Path, run: Run
) -> None:
    build_hard(tmp_path / "a")
    before = describe(tmp_path / "a")

    run(symlinks=engine.Symlinks.FOLLOW)

    arrived = describe(tmp_path / "b")
    assert "link" not in {facts.kind for facts in arrived.values()}
    own = {path: facts for path, facts in before.items() if facts.kind in ("file", "folder")}
    assert_same(to_arrive(own), {path: arrived[path] for path in own if path in arrived})
    assert len(arrived) < 2 * len(before)


@pytest.mark.parametrize("strategy", STRATEGIES)
def test_a_move_that_would_follow_links_is_refused_and_touches_nothing(
    tmp_path: Path, run: Run, strategy: Strategy
) -> None:
    _tree_with_links(tmp_path / "a")
    before = describe(tmp_path / "a")

    with pytest.raises(engine.BadRequest):
        run(strategy=strategy, mode=Mode.MOVE, symlinks=engine.Symlinks.FOLLOW)

    assert_same(before, describe(tmp_path / "a"))
    assert not (tmp_path / "b").exists()

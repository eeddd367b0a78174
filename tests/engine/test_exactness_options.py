"""What is carried only where it is asked for, and what is left out where it is asked for."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

import engine
from engine import Mode, Strategy
from tests.engine.exactness import (
    STRATEGIES,
    assert_only_specials_failed,
    ends,
    run_as_ordinary_user,
    shown,
    specials,
    to_arrive,
    with_folders_above,
)
from tests.rig.hard_tree import (
    acl_support,
    assert_same,
    build_hard,
    describe,
    remove_hard,
    xattr_support,
)
from tests.rig.transfers import Run

pytestmark = pytest.mark.usefixtures("leave_no_hard_tree")


@pytest.mark.parametrize("strategy", STRATEGIES)
def test_special_bits_are_carried_when_special_bits_is_set(
    tmp_path: Path, run: Run, strategy: Strategy
) -> None:
    build_hard(tmp_path / "a")
    (tmp_path / "a").chmod(0o3775)
    before = describe(tmp_path / "a")

    report = run(strategy=strategy, special_bits=True)

    assert_only_specials_failed(report, before)
    assert_same(to_arrive(before, special_bits=True), describe(tmp_path / "b"))


@pytest.mark.parametrize("way", ["local", "local-ssh", "ssh-local"])
@pytest.mark.parametrize("strategy", STRATEGIES)
def test_extended_attributes_and_acls_are_carried_when_xattrs_is_set(
    tmp_path: Path, run: Run, request: pytest.FixtureRequest, strategy: Strategy, way: str
) -> None:
    if not xattr_support(tmp_path):
        pytest.skip("this file system takes no attributes")
    build_hard(tmp_path / "a")
    os.setxattr(tmp_path / "a", "user.ketter.top", b"\0")
    before = describe(tmp_path / "a", xattrs=True)
    lists = {name for facts in before.values() for name, _ in facts.xattrs if name[:1] == b"s"}
    assert len(lists) == (2 if acl_support(tmp_path) else 0)

    report = run(strategy=strategy, xattrs=True, **ends(way, tmp_path, request))

    assert_only_specials_failed(report, before)
    assert_same(to_arrive(before, xattrs=True), tmp_path / "b")


@pytest.mark.parametrize("strategy", STRATEGIES)
def test_an_ordinary_user_delivers_attributes_of_read_only_files_and_folders(
    tmp_path: Path, strategy: Strategy
) -> None:
    if not xattr_support(tmp_path):
        pytest.skip("this file system takes no attributes")
    build_hard(tmp_path / "a", special=False)
    remove_hard(tmp_path / "a" / "modes")  # Much of it such a user may not read.
    (tmp_path / "a" / "folders" / "read-only").chmod(0o755)
    os.setxattr(tmp_path / "a" / "folders" / "read-only", "user.ketter", b"folder")
    (tmp_path / "a" / "folders" / "read-only").chmod(0o555)
    before = describe(tmp_path / "a", xattrs=True)

    status, failures = run_as_ordinary_user(
        tmp_path, strategy=strategy, xattrs=True, special_bits=True
    )

    assert (status, failures) == ("done", {})
    assert_same(to_arrive(before, xattrs=True, special_bits=True), tmp_path / "b")


@pytest.mark.parametrize("strategy", STRATEGIES)
def test_a_move_with_all_options_set_delivers_the_awkward_tree_exactly(
    tmp_path: Path, run: Run, strategy: Strategy
) -> None:
    build_hard(tmp_path / "a")
    before = describe(tmp_path / "a", xattrs=True)

    report = run(
        strategy=strategy,
        mode=Mode.MOVE,
        streams=2,
        xattrs=True,
        special_bits=True,
        hard_links=engine.HardLinks.KEEP,
        checksum=True,
    )

    assert_only_specials_failed(report, before)
    expected = to_arrive(before, xattrs=True, special_bits=True, hard_links=True)
    assert_same(expected, tmp_path / "b")
    assert set(describe(tmp_path / "a")) == with_folders_above(specials(before))


@pytest.mark.parametrize("mode", Mode)
@pytest.mark.parametrize("strategy", STRATEGIES)
def test_excluded_entries_stay_at_the_source_and_the_rest_arrives_exactly(
    tmp_path: Path, run: Run, strategy: Strategy, mode: Mode
) -> None:
    build_hard(tmp_path / "a")
    before = describe(tmp_path / "a")
    left_out = ("links", "deep", "names/as folders", "special")
    rules = tuple(("exclude", f"/{name}") for name in left_out)

    report = run(strategy=strategy, mode=mode, filters=(*rules, ("exclude", "new\nline")))

    assert report.status == "done", "what is left out needs no mention"
    kept = {
        path: facts
        for path, facts in before.items()
        if not path.startswith(tuple(os.fsencode(name) for name in left_out))
        and path != b"names/new\nline"
    }
    assert_same(to_arrive(kept), describe(tmp_path / "b"))
    if mode is Mode.MOVE:
        assert set(describe(tmp_path / "a")) == with_folders_above(before.keys() - kept.keys())


def test_filter_rules_apply_in_order_to_names_that_look_like_patterns(
    tmp_path: Path, run: Run
) -> None:
    (tmp_path / "a").mkdir()
    names = ["[a]", "a", "*", "b*", "bc", "new\nline", "keep.tmp", "drop.tmp", "\udcff.tmp"]
    for name in names:
        (tmp_path / "a" / name).write_bytes(b"content")

    rules = (
        ("exclude", r"\[a]"),
        ("exclude", r"b\*"),
        ("exclude", "new*line"),
        ("exclude", "*.tmp"),
        ("include", "keep.tmp"),
    )
    report = run(filters=rules)

    assert set(os.listdir(tmp_path / "b")) == {"a", "*", "bc", "keep.tmp"}
    assert shown(b"[a]") not in {failure.path for failure in report.failures}

"""Whole transfers on this machine: what arrives, what is refused, what is left behind."""

from __future__ import annotations

import os
import socket
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

import engine
from engine import Mode, OnConflict, Request, SilentObserver, Strategy, Verify
from engine.parcels import builder
from engine.plan.compare import TreeComparison
from engine.proof.manifest import read as read_manifest
from tests.engine.exactness import STRATEGIES
from tests.rig.observers import Meddler
from tests.rig.transfers import Run, endpoint
from tests.rig.trees import assert_equal_trees, build_mixed, build_small, snapshot


def debris(folder: Path) -> list[str]:
    return [name for name in os.listdir(folder) if name.startswith(".ketter")]


@pytest.mark.parametrize("mode", Mode)
@pytest.mark.parametrize("strategy", STRATEGIES)
@pytest.mark.parametrize("verify", Verify)
def test_a_mixed_tree_arrives_exactly_in_every_mode_strategy_and_verify_level(
    tmp_path: Path, run: Run, mode: Mode, strategy: Strategy, verify: Verify
) -> None:
    build_mixed(tmp_path / "a")
    build_small(tmp_path / "a" / "many", 40)
    before = snapshot(tmp_path / "a")

    report = run(mode=mode, strategy=strategy, verify=verify)

    assert (report.status, report.verify) == ("done", verify)
    assert_equal_trees(before, tmp_path / "b")
    left = snapshot(tmp_path / "a")
    assert bool(left) is (mode is Mode.COPY)
    assert (tmp_path / "a").is_dir()
    assert debris(tmp_path / "b") == []


def test_a_move_of_several_parcels_over_three_streams_delivers_the_tree(
    tmp_path: Path, run: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    build_small(tmp_path / "a", 300)
    for number in range(6):
        (tmp_path / "a" / f"large{number}").write_bytes(os.urandom(3 << 20))
    before = snapshot(tmp_path / "a")

    limits = dict.fromkeys(builder.PARCEL_BYTES, (1 << 20, 1 << 20))
    monkeypatch.setattr(builder, "PARCEL_BYTES", limits)

    report = run(streams=3, mode=Mode.MOVE)

    assert report.status == "done"
    assert report.parcels >= 6
    assert snapshot(tmp_path / "b") == before


def test_a_single_file_is_delivered_to_a_name_or_into_a_folder(tmp_path: Path, run: Run) -> None:
    (tmp_path / "a").mkdir()
    (tmp_path / "a" / "clip.mov").write_bytes(b"frames")
    source = endpoint(tmp_path / "a" / "clip.mov")

    run(source=source, target=endpoint(tmp_path / "b" / "take1.mov"))
    run(source=source, target=endpoint(f"{tmp_path}/c/"))
    (tmp_path / "d").mkdir()
    run(source=source, target=endpoint(tmp_path / "d"), mode=Mode.MOVE)

    assert (tmp_path / "b" / "take1.mov").read_bytes() == b"frames"
    assert (tmp_path / "c" / "clip.mov").read_bytes() == b"frames"
    assert (tmp_path / "d" / "clip.mov").read_bytes() == b"frames"
    assert not (tmp_path / "a" / "clip.mov").exists()


def test_an_empty_folder_is_delivered(tmp_path: Path, run: Run) -> None:
    (tmp_path / "a" / "inner").mkdir(parents=True)

    assert run().status == "done"

    assert (tmp_path / "b" / "inner").is_dir()


def test_a_repeated_move_keeps_a_source_file_whose_delivered_copy_differs(
    tmp_path: Path, run: Run
) -> None:
    build_small(tmp_path / "a", 20)
    run()
    odd = next(p for p in sorted((tmp_path / "b").rglob("*.dpx")) if p.stat().st_size)
    times = odd.stat()
    odd.write_bytes(bytes([odd.read_bytes()[0] ^ 1]) + odd.read_bytes()[1:])
    os.utime(odd, ns=(times.st_atime_ns, times.st_mtime_ns))

    with pytest.raises(engine.TargetExists):
        run(mode=Mode.MOVE)
    report = run(mode=Mode.MOVE, on_conflict=OnConflict.SKIP)

    left = list((tmp_path / "a").rglob("*.dpx"))
    assert [p.name for p in left] == [odd.name]
    assert report.files_removed == 19


def test_a_second_copy_touches_nothing_where_the_target_lacks_nothing(
    tmp_path: Path, run: Run
) -> None:
    build_small(tmp_path / "a", 20)
    run()
    before = snapshot(tmp_path / "b")
    changed = (tmp_path / "b").stat().st_ctime_ns

    report = run()

    assert (report.files, report.files_skipped, report.parcels) == (0, 20, 0)
    assert snapshot(tmp_path / "b") == before
    assert (tmp_path / "b").stat().st_ctime_ns == changed


def _other_time(folder: Path) -> None:
    os.utime(folder, ns=(1, 10**18))


def _another_file(folder: Path) -> None:
    (folder / "another").write_text("x")


def _another_folder(folder: Path) -> None:
    (folder / "inner").mkdir()


@pytest.mark.parametrize("change", [_other_time, _another_file, _another_folder])
def test_a_second_copy_brings_one_changed_folder_in_line(
    tmp_path: Path, run: Run, change: Callable[[Path], None]
) -> None:
    build_small(tmp_path / "a", 20)
    run()
    change(next(path for path in (tmp_path / "a").rglob("*") if path.is_dir()))

    run()

    assert_equal_trees(below_top(snapshot(tmp_path / "a")), below_top(snapshot(tmp_path / "b")))


def below_top(tree: dict[bytes, Any]) -> dict[bytes, Any]:
    """A snapshot without the top, whose time a second copy leaves alone."""
    return {path: entry for path, entry in tree.items() if path not in (b"", b".")}


def test_a_move_of_what_is_there_already_removes_the_folders_too(tmp_path: Path, run: Run) -> None:
    build_small(tmp_path / "a", 20)
    run()

    report = run(mode=Mode.MOVE)

    assert report.files_removed == 20
    assert list((tmp_path / "a").rglob("*")) == []


@pytest.mark.parametrize(
    ("again", "forgiven"),
    [
        ({"attempt": 1}, False),
        ({"attempt": 2}, True),
        ({"resume": True}, True),
        ({"resume": True, "on_record": True}, False),
    ],
)
def test_a_source_file_that_vanishes_during_comparison_is_no_conflict(
    tmp_path: Path, run: Run, monkeypatch: pytest.MonkeyPatch, again: dict[str, Any], forgiven: bool
) -> None:
    """An attempt that was killed or cut off may still remove what it has delivered.

    A job counts its attempts, the command line does not.
    """
    build_small(tmp_path / "a", 20)
    run()
    gone = next((tmp_path / "a").rglob("*.dpx")).relative_to(tmp_path / "a")
    prove_all = TreeComparison._prove_all

    def prove_later(chooser: TreeComparison) -> None:
        (tmp_path / "a" / gone).unlink()
        prove_all(chooser)

    monkeypatch.setattr(TreeComparison, "_prove_all", prove_later)

    report = run(mode=Mode.MOVE, **again)

    assert (report.files_skipped, report.files_removed) == (19, 19)
    told = [(failure.path, failure.code) for failure in report.failures]
    assert told == ([(str(gone), "VANISHED")] if not forgiven else [])
    assert len(list((tmp_path / "b").rglob("*.dpx"))) == 20


def test_pipes_and_sockets_are_reported_and_the_rest_is_moved(tmp_path: Path, run: Run) -> None:
    build_small(tmp_path / "a", 30)
    os.mkfifo(tmp_path / "a" / "pipe")
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(str(tmp_path / "a" / "s"))

        report = run(mode=Mode.MOVE)

    assert report.status == "partial"
    assert {(f.path, f.code) for f in report.failures} == {
        ("pipe", "KIND_NOT_CARRIED"),
        ("s", "KIND_NOT_CARRIED"),
    }
    assert report.files == report.files_removed == 30
    assert sorted(os.listdir(tmp_path / "a")) == ["pipe", "s"]


@pytest.mark.parametrize("strategy", [Strategy.ZIP, Strategy.FILES])
@pytest.mark.parametrize("size", [10, 6 << 20])
@pytest.mark.parametrize("change", ["grow", "shrink", "touch", "vanish"])
def test_a_source_file_that_changes_before_it_is_read_is_reported_and_stays(
    tmp_path: Path, run: Run, strategy: Strategy, size: int, change: str
) -> None:
    build_small(tmp_path / "a", 20)
    odd = tmp_path / "a" / "odd"
    odd.write_bytes(b"x" * size)
    changes: dict[str, Callable[[], object]] = {
        "grow": lambda: odd.write_bytes(b"x" * (size + 1)),
        "shrink": lambda: odd.write_bytes(b"x" * (size - 1)),
        "touch": lambda: os.utime(odd, ns=(5, 5)),
        "vanish": odd.unlink,
    }

    meddler = Meddler(engine.Phase.TRANSFER, changes[change])
    report = run(meddler, mode=Mode.MOVE, strategy=strategy)

    assert (report.status, report.files) == ("partial", 20)
    assert report.failures[0].path == "odd"
    assert report.failures[0].code == ("VANISHED" if change == "vanish" else "SOURCE_CHANGED")
    assert odd.exists() is (change != "vanish")
    assert not (tmp_path / "b" / "odd").exists()


def test_a_source_changed_after_the_copy_is_not_removed(tmp_path: Path, run: Run) -> None:
    build_small(tmp_path / "a", 20)
    odd = tmp_path / "a" / "odd"
    odd.write_bytes(b"first")

    report = run(
        Meddler(engine.Phase.REMOVE_SOURCE, lambda: odd.write_bytes(b"second")), mode=Mode.MOVE
    )

    assert report.status == "partial"
    assert odd.read_bytes() == b"second"
    assert (tmp_path / "b" / "odd").read_bytes() == b"first"


@pytest.mark.parametrize("strategy", [Strategy.ZIP, Strategy.FILES])
@pytest.mark.parametrize("mode", Mode)
def test_a_damaged_byte_fails_the_transfer_and_nothing_is_published(
    tmp_path: Path, run: Run, mode: Mode, strategy: Strategy
) -> None:
    build_mixed(tmp_path / "a")
    before = snapshot(tmp_path / "a")

    with pytest.raises(engine.VerifyFailed, match="digests"):
        run(mode=mode, strategy=strategy, inject_fault="flip-byte")

    assert snapshot(tmp_path / "a") == before
    assert not (tmp_path / "b").exists()


def test_a_move_cancelled_by_its_observer_cleans_up_and_keeps_the_source(
    tmp_path: Path, run: Run
) -> None:
    build_small(tmp_path / "a", 50)
    (tmp_path / "b").mkdir()
    (tmp_path / "b" / "kept").write_bytes(b"kept")

    class Stop(SilentObserver):
        def parcel(self, parcel: engine.ParcelReport) -> None:
            if parcel.state is engine.ParcelState.VERIFIED:
                raise engine.Cancelled("enough")

    with pytest.raises(engine.Cancelled):
        run(Stop(), mode=Mode.MOVE)

    assert os.listdir(tmp_path / "b") == ["kept"]
    assert len(list((tmp_path / "a").rglob("*.dpx"))) == 50


def test_parcels_are_reported_with_a_manifest_of_every_entry(tmp_path: Path, run: Run) -> None:
    build_mixed(tmp_path / "a")
    seen: list[engine.ParcelReport] = []

    class Watch(SilentObserver):
        wants_manifests = True

        def parcel(self, parcel: engine.ParcelReport) -> None:
            seen.append(parcel)

    run(Watch(), mode=Mode.MOVE)

    states = [p.state for p in seen if p.number == 1]
    assert states == ["pending", "sending", "verified", "published", "source_removed"]
    manifests = [p.manifest for p in seen if p.state == "verified"]
    records = {r["path"]: r for m in manifests if m for r in read_manifest(m)}
    found = snapshot(tmp_path / "b")
    assert {os.fsencode(path) for path in records} == set(found)
    for path, record in records.items():
        if record["kind"] == "f":
            assert record["sha256"] == found[os.fsencode(path)].sha256


def test_filters_choose_what_is_carried_and_removed(tmp_path: Path, run: Run) -> None:
    for name in ("keep/a.mov", "keep/a.tmp", "cache/b.mov", "c.mov"):
        path = tmp_path / "a" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(name.encode())

    run(filters=(("include", "*.mov"), ("exclude", "cache")), mode=Mode.MOVE)

    assert sorted(p.name for p in (tmp_path / "b").rglob("*.*")) == ["a.mov", "c.mov"]
    assert sorted(p.name for p in (tmp_path / "a").rglob("*.*")) == ["a.tmp", "b.mov"]


@pytest.mark.parametrize(("files", "parcels"), [(30, {"zip": 1}), (3, {"file": 1})])
def test_a_dry_run_plans_a_zip_parcel_only_for_many_files_and_changes_nothing(
    tmp_path: Path, files: int, parcels: dict[str, int]
) -> None:
    build_small(tmp_path / "a", files)
    before = snapshot(tmp_path)

    plan = engine.dry_run(Request(endpoint(tmp_path / "a"), endpoint(tmp_path / "b"), "test"))

    assert (plan["files"], plan["parcels"]) == (files, parcels)
    assert snapshot(tmp_path) == before

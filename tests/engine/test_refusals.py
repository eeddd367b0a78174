"""Transfers on this machine that cannot be done, or not in full: said so, nothing broken."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

import engine
from engine import Endpoint, OnConflict, Request
from tests.rig.project import PROJECT
from tests.rig.transfers import endpoint
from tests.rig.trees import build_small, snapshot


def run(source: Endpoint, target: Endpoint, policy: OnConflict = OnConflict.FAIL) -> engine.Report:
    return engine.run(Request(source, target, "test", on_conflict=policy))


@pytest.mark.parametrize(
    ("source", "target", "error"),
    [
        ("a", "a", engine.Overlap),
        ("a", "a/inner", engine.Overlap),
        ("a/inner", "a", engine.Overlap),
        ("link", "a", engine.Overlap),
        ("a/../../etc", "b", engine.PathOutsideRoot),
        ("a", "../b", engine.PathOutsideRoot),
        ("out", "b", engine.PathOutsideRoot),
        ("a", "out/b", engine.PathOutsideRoot),
        ("nothing", "b", engine.SourceMissing),
        ("a", "file", engine.TargetExists),
    ],
)
def test_an_impossible_transfer_is_refused_and_changes_nothing(
    tmp_path: Path, source: str, target: str, error: type[engine.EngineError]
) -> None:
    root = tmp_path / "root"
    (root / "a" / "inner").mkdir(parents=True)
    (root / "a" / "x").write_bytes(b"x")
    (root / "file").write_bytes(b"f")
    (root / "link").symlink_to("a")
    (root / "out").symlink_to(tmp_path)
    before = snapshot(tmp_path)

    with pytest.raises(error):
        run(Endpoint(str(root), source), Endpoint(str(root), target))

    assert snapshot(tmp_path) == before


def test_a_target_root_that_does_not_exist_is_not_created(tmp_path: Path) -> None:
    """As of a disk that is not mounted: what is moved there would fill another one."""
    build_small(tmp_path / "a", 3)
    before = snapshot(tmp_path)

    with pytest.raises(engine.RootMissing, match="unmounted does not exist at the target"):
        run(endpoint(tmp_path / "a"), Endpoint(str(tmp_path / "unmounted"), "day1"))

    assert snapshot(tmp_path) == before


def test_a_symlink_in_the_target_is_not_followed(tmp_path: Path) -> None:
    (tmp_path / "a" / "sub").mkdir(parents=True)
    (tmp_path / "a" / "sub" / "x").write_bytes(b"x")
    (tmp_path / "outside").mkdir()
    (tmp_path / "b").mkdir()
    (tmp_path / "b" / "sub").symlink_to(tmp_path / "outside")

    with pytest.raises(engine.TargetExists):
        run(endpoint(tmp_path / "a"), endpoint(tmp_path / "b"), OnConflict.OVERWRITE)

    assert os.listdir(tmp_path / "outside") == []


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Callable[[str], Path]]:
    """Make a tmpfs with the given limits; needs root."""
    if os.geteuid() != 0:
        pytest.skip("only root can mount a small disk")
    disk = tmp_path / "disk"
    disk.mkdir()
    mounted = []

    def mount(options: str) -> Path:
        subprocess.run(["mount", "-t", "tmpfs", "-o", options, "ketter", disk], check=True)
        mounted.append(disk)
        return disk

    yield mount
    for path in mounted:
        subprocess.run(["umount", path], check=True)


@pytest.mark.parametrize("limit", ["size=1m", "nr_inodes=20"])
def test_a_full_target_disk_is_reported_and_left_clean(
    tmp_path: Path, small_disk: Callable[[str], Path], limit: str
) -> None:
    build_small(tmp_path / "a", 100)
    (tmp_path / "a" / "large").write_bytes(os.urandom(2 << 20))
    disk = small_disk(limit)

    with pytest.raises(engine.NoSpace):
        run(endpoint(tmp_path / "a"), endpoint(disk))

    assert os.listdir(disk) == []


def test_an_unreadable_file_is_reported_and_the_rest_is_moved(tmp_path: Path) -> None:
    """Through the CLI, without the capabilities by which root reads everything."""
    build_small(tmp_path / "a", 30)
    (tmp_path / "a" / "secret").write_bytes(b"s")
    (tmp_path / "a" / "secret").chmod(0)
    line = [sys.executable, "-m", "engine.cli", "--json", "--mode", "move"]
    line += ["--from", str(tmp_path / "a"), "--to", str(tmp_path / "b")]
    if os.geteuid() == 0:
        line = ["setpriv", "--bounding-set=-dac_override,-dac_read_search", *line]

    ended = subprocess.run(line, cwd=PROJECT, capture_output=True, timeout=60, check=False)

    report = json.loads(ended.stdout)
    assert ended.returncode == 3
    assert (report["status"], report["files"]) == ("partial", 30)
    assert [(f["path"], f["code"]) for f in report["failures"]] == [("secret", "PERMISSION_DENIED")]
    assert (tmp_path / "a" / "secret").exists()

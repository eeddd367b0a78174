"""File systems that begin below a target: what goes there waits there, and is renamed there."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path

import pytest

import engine
from engine import HardLinks, Mode
from tests.rig.command import cli, finish
from tests.rig.interrupted import MIB, build_large
from tests.rig.lying import Lie
from tests.rig.needs import needs_root
from tests.rig.transfers import Run
from tests.rig.trees import build_small, snapshot
from tests.rig.waiting import wait_until

pytestmark = needs_root

Mounts = Callable[..., Path]


@pytest.fixture
def mount(tmp_path: Path) -> Iterator[Mounts]:
    """Mount a file system in memory, of some MiB, on a folder of the target."""
    mounted: list[Path] = []

    def at(name: str, size: int = 200, options: str = "") -> Path:
        folder = tmp_path / "b" / name
        folder.mkdir(parents=True, exist_ok=True)
        words = [
            "mount",
            "-t",
            "tmpfs",
            "-o",
            f"size={size}m,mode=755{options}",
            "ketter-test",
            folder,
        ]
        subprocess.run(words, check=True, timeout=10)
        mounted.append(folder)
        return folder

    yield at
    for folder in reversed(mounted):
        subprocess.run(["umount", folder], check=True, timeout=10)


@pytest.fixture
def tree(tmp_path: Path) -> Path:
    """A source with folders `disk`, `disk/inner/deep` and `plain`."""
    for name in ("disk", "disk/inner/deep", "plain"):
        build_small(tmp_path / "a" / name, 5)
    os.utime(tmp_path / "a" / "disk", ns=(7, 7))
    return tmp_path / "a"


def left(target: Path) -> list[Path]:
    """The staging folders anywhere at a target."""
    return list(target.rglob(".ketter-*"))


@pytest.mark.parametrize("mode", Mode)
def test_a_tree_is_delivered_into_nested_file_systems(
    tree: Path, tmp_path: Path, run: Run, mount: Mounts, mode: Mode
) -> None:
    mount("disk")
    mount("disk/inner")
    before = snapshot(tree)

    report = run(mode=mode)

    assert report.status == "done"
    assert report.plan["mounts"] == ["disk", "disk/inner"]
    assert snapshot(tmp_path / "b") == before
    assert left(tmp_path / "b") == []
    assert (mode is Mode.MOVE) == (not list(tree.rglob("*.dpx")))


def test_what_goes_below_needs_no_room_above(tmp_path: Path, mount: Mounts) -> None:
    """The top has 16 MiB, the file 64; on the way the file is in one place only."""
    top, big = mount(".", 16), mount("disk", 100)
    build_large(tmp_path / "a" / "disk" / "tape.mov", 64 * MIB)
    build_small(tmp_path / "a" / "plain", 5)

    process = cli(
        "--from", tmp_path / "a", "--to", top, "--bwlimit", "30M", "--streams", "2", "--json"
    )
    wait_until(lambda: list(big.glob(".ketter-*.part/tape.mov")) or process.poll() is not None)
    status, out, err = finish(process)

    assert (status, err) == (0, "")
    assert json.loads(out)["plan"]["mounts"] == ["disk"]
    assert (big / "tape.mov").stat().st_size == 64 * MIB
    assert left(top) == []


def test_what_is_too_large_for_all_of_them_is_refused(tmp_path: Path, mount: Mounts) -> None:
    top, _ = mount(".", 16), mount("disk", 20)
    build_large(tmp_path / "a" / "disk" / "tape.mov", 40 * MIB)

    status, _, err = finish(cli("--from", tmp_path / "a", "--to", top))

    assert status == 6
    assert err.startswith("NO_SPACE: ")
    assert left(top) == []


@pytest.mark.parametrize("end", [signal.SIGKILL, signal.SIGTERM])
@pytest.mark.parametrize("resume", [False, True])
def test_an_ended_transfer_goes_on_or_is_cleared_away_there_too(
    tmp_path: Path, mount: Mounts, end: signal.Signals, resume: bool
) -> None:
    disk = mount("disk")
    build_large(tmp_path / "a" / "disk" / "tape.mov", 24 * MIB)
    build_small(tmp_path / "a" / "disk" / "frames", 20)
    build_small(tmp_path / "a" / "plain", 20)
    os.utime(disk, ns=(9, 9))
    words = ["--from", tmp_path / "a", "--to", tmp_path / "b", "--mode", "move", "--json"]
    words += ["--resume"] if resume else []
    before = snapshot(tmp_path / "a")
    process = cli(*words, "--bwlimit", "8M")
    wait_until(lambda: list(disk.glob(".ketter-*.part/frames/**/*.dpx")) != [], 20)
    time.sleep(1.0)

    process.send_signal(end)
    finish(process)
    if end == signal.SIGTERM and not resume:
        assert left(tmp_path / "b") == []
        assert disk.stat().st_mtime_ns == 9
    status, out, err = finish(cli(*words))

    assert (status, err) == (0, "")
    assert snapshot(tmp_path / "b") == before
    assert left(tmp_path / "b") == []
    assert bool(json.loads(out)["bytes_resumed"]) == resume


def test_a_disk_that_is_gone_when_the_transfer_goes_on_is_filled_from_nothing(
    tmp_path: Path, mount: Mounts
) -> None:
    disk = mount("disk")
    build_small(tmp_path / "a" / "disk", 200)
    build_large(tmp_path / "a" / "plain" / "tape.mov", 24 * MIB)
    words = ["--from", tmp_path / "a", "--to", tmp_path / "b", "--resume"]
    process = cli(*words, "--bwlimit", "8M")
    wait_until(lambda: list(disk.glob(".ketter-*.part/**/*.dpx")) != [], 20)
    process.kill()
    finish(process)
    wait_until(lambda: subprocess.run(["umount", disk], check=False).returncode == 0, 20)

    status, _, err = finish(cli(*words))
    found = snapshot(tmp_path / "b")
    subprocess.run(["mount", "-t", "tmpfs", "ketter-test", disk], check=True)  # As `mount` expects.

    assert (status, err) == (0, "")
    assert found == snapshot(tmp_path / "a")
    assert left(tmp_path / "b") == []


def test_a_write_protected_disk_costs_what_goes_there_and_nothing_else(
    tree: Path, tmp_path: Path, run: Run, mount: Mounts
) -> None:
    mount("disk", options=",ro")

    report = run(mode=Mode.MOVE)

    assert report.status == "partial"
    assert {one.path.split("/")[0] for one in report.failures} == {"disk"}
    assert len(list((tmp_path / "b" / "plain").rglob("*.dpx"))) == 5
    assert not list((tree / "plain").rglob("*.dpx"))
    assert len(list((tree / "disk").rglob("*.dpx"))) == 10


def test_a_bind_mount_of_the_same_file_system_is_found(
    tree: Path, tmp_path: Path, run: Run
) -> None:
    """Its device is the same; a rename into it is refused."""
    (tmp_path / "other").mkdir()
    (tmp_path / "b" / "disk").mkdir(parents=True)
    point = tmp_path / "b" / "disk"
    subprocess.run(["mount", "--bind", tmp_path / "other", point], check=True)
    try:
        report = run()
        found = snapshot(tmp_path / "b")
    finally:
        subprocess.run(["umount", point], check=True)

    assert report.plan["mounts"] == ["disk"]
    assert found == snapshot(tree)
    assert left(tmp_path) == []


def test_a_hard_link_between_two_file_systems_becomes_a_file(
    tmp_path: Path, run: Run, mount: Mounts
) -> None:
    mount("disk")
    (tmp_path / "a" / "disk").mkdir(parents=True)
    (tmp_path / "a" / "first").write_bytes(b"frames")
    os.link(tmp_path / "a" / "first", tmp_path / "a" / "disk" / "second")

    report = run(hard_links=HardLinks.KEEP, mode=Mode.MOVE)

    assert report.status == "done"
    there = [path.read_bytes() for path in (tmp_path / "b").rglob("*") if path.is_file()]
    assert there == [b"frames"] * 2
    assert [path for path in (tmp_path / "a").rglob("*") if path.is_file()] == []


@pytest.mark.parametrize("kind", ["folder", "link", "file"])
def test_what_others_have_put_there_under_that_name_is_not_used(
    tree: Path, tmp_path: Path, run: Run, mount: Mounts, kind: str
) -> None:
    disk = mount("disk")
    name = disk / ".ketter-test.part"
    precious = tmp_path / "precious"
    precious.mkdir()
    if kind == "folder":
        name.mkdir()
        os.chown(name, 65_533, -1)
    elif kind == "link":
        name.symlink_to(precious)
    else:
        name.write_bytes(b"theirs")

    report = run()

    assert report.status == "done"
    assert name.is_symlink() or name.exists()
    assert os.listdir(precious) == []
    if name.is_symlink() or name.is_file():
        name.unlink()
    else:
        assert os.listdir(name) == []
        name.rmdir()
    found = snapshot(tmp_path / "b")
    assert {path: entry for path, entry in found.items() if path != b"disk"} == {
        path: entry for path, entry in snapshot(tree).items() if path != b"disk"
    }


def test_a_disk_that_may_not_be_looked_into_stops_nothing(
    tree: Path, tmp_path: Path, run: Run, mount: Mounts, lie: Lie
) -> None:
    """What goes there is copied there, or named."""
    mount("disk")
    lie(
        target_compare="""
_statvfs = os.statvfs
def statvfs(place):
    if isinstance(place, int):
        raise PermissionError(errno.EACCES, "Permission denied")
    return _statvfs(place)
os.statvfs = statvfs
"""
    )

    report = run()

    assert report.status == "done"
    assert snapshot(tmp_path / "b") == snapshot(tree)
    assert left(tmp_path / "b") == []


def test_a_note_that_leads_elsewhere_makes_no_agent_remove_anything(
    tmp_path: Path, run: Run, lie: Lie
) -> None:
    """The staging folder is the user's own; a note in it may be from another version."""
    build_small(tmp_path / "a", 5)
    other = tmp_path / "b" / "precious" / ".ketter-test.part"
    other.mkdir(parents=True)
    other.chmod(0o700)
    (other / "x").write_bytes(b"x")
    number = other.stat().st_ino
    lines = [
        '["precious", ".ketter-test.part", 1, 2, 3]',
        f'["precious", "x", 1, 2, {number}]',
        '["../precious", ".ketter-x.part", 1, 2, 3]',
        '["precious", ".ketter-test.part", 1, 2]',
        "[[[",
        "7",
        '["precious"',
    ]
    witness = tmp_path / "witness"
    lie(
        target_staging_folder=f"""
_mark = mark
def mark(fd, name):
    note = os.open("grafts", os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600, dir_fd=fd)
    os.write(note, {chr(10).join(lines).encode()!r})
    os.close(note)
    os.close(os.open({str(witness)!r}, os.O_CREAT))
    _mark(fd, name)
"""
    )

    with suppress(engine.EngineError):  # It may refuse the note.
        run()

    assert witness.exists()
    assert (other / "x").read_bytes() == b"x"

"""Inode numbers over sshfs, as the kernel itself changes them; and the pieces of what is done."""

from __future__ import annotations

import contextlib
import os
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

import engine
from engine import Mode
from engine.agent import inodes
from engine.agent.tree import entry_of, unchanged
from tests.engine.fuse import missing, mounted
from tests.rig.interrupted import MIB, build_large, staged, whole
from tests.rig.observers import Stop
from tests.rig.sshd import Sshd
from tests.rig.transfers import Run
from tests.rig.trees import MTIME, put

# -- the real thing: sshfs whose inodes leave the cache -------------------------


@pytest.fixture
def sshfs(tmp_path: Path, sshd: Sshd) -> Callable[[], contextlib.AbstractContextManager[None]]:
    if reason := missing("sshfs", "fusermount3"):
        pytest.skip(reason)
    if not os.access("/proc/sys/vm/drop_caches", os.W_OK):
        pytest.skip("this needs root, to have the kernel forget inodes")
    (tmp_path / "far").mkdir()
    command = ["sshfs", "-F", str(sshd.ssh_config), f"{sshd.host}:{tmp_path / 'far'}"]
    return lambda: mounted(command, tmp_path / "a")


@contextlib.contextmanager
def forgetting() -> Iterator[None]:
    """Have the kernel forget inodes, again and again."""
    done = threading.Event()

    def forget() -> None:
        while not done.wait(0.2):
            Path("/proc/sys/vm/drop_caches").write_text("2")

    thread = threading.Thread(target=forget)
    thread.start()
    try:
        yield
    finally:
        done.set()
        thread.join()


def numbers(root: Path) -> dict[str, int]:
    return {name: (root / name).stat().st_ino for name in os.listdir(root)}


@pytest.mark.slow
@pytest.mark.parametrize("mode", list(Mode))
def test_a_tree_on_sshfs_is_transferred_while_the_kernel_forgets_inodes(
    tmp_path: Path, run: Run, sshfs: Any, mode: Mode
) -> None:
    for number in range(100):
        (tmp_path / "far" / f"f{number}").write_bytes(os.urandom(300_000))
        os.utime(tmp_path / "far" / f"f{number}", ns=(MTIME, MTIME - MTIME % 10**9))
    before = whole(tmp_path / "far")
    with sshfs():
        first = numbers(tmp_path / "a")
        Path("/proc/sys/vm/drop_caches").write_text("2")
        later = {name: (tmp_path / "a" / name).stat().st_ino for name in reversed(first)}
        assert first != later  # Else this shows nothing.
        with forgetting():
            report = run(mode=mode, bwlimit=8 * MIB)

    assert (report.status, report.failures) == ("done", ())
    after = whole(tmp_path / "b")
    assert {**before, b".": after[b"."]} == after
    assert len(os.listdir(tmp_path / "far")) == (0 if mode is Mode.MOVE else 100)


@pytest.mark.slow
def test_a_transfer_from_a_remounted_source_is_resumed_with_new_inode_numbers(
    tmp_path: Path, run: Run, sshfs: Any
) -> None:
    far = tmp_path / "far"
    build_large(far / "large.mov", 80 * MIB)
    os.utime(far / "large.mov", (1_600_000_000, 1_600_000_000))
    for name in "bcde":
        (far / name).write_text(name)
    with sshfs():
        first = (tmp_path / "a/large.mov").stat().st_ino
        with pytest.raises(engine.Interrupted):
            run(Stop(lambda: staged(tmp_path / "b") >= 40 * MIB), bwlimit=40 * MIB)
    with sshfs():
        for name in "edcb":
            (tmp_path / "a" / name).stat()
        assert (tmp_path / "a/large.mov").stat().st_ino != first
        report = run(resume=True, attempt=2)

    assert report.status == "done"
    assert report.bytes_resumed >= 16 * MIB
    assert (tmp_path / "b/large.mov").read_bytes() == (far / "large.mov").read_bytes()


# -- the pieces ------------------------------------------------------------------


@pytest.mark.parametrize(
    ("kind", "forgets"),
    [
        *((kind, True) for kind in ("vfat", "msdos", "exfat", "fuse", "fuseblk", "fuse.sshfs")),
        *((kind, True) for kind in ("fuse.mergerfs", "9p", "cifs", "smb3", "macfuse", "smbfs")),
        *((kind, False) for kind in ("ext4", "xfs", "btrfs", "zfs", "tmpfs", "nfs4", "overlay")),
        *((kind, False) for kind in ("apfs", "hfs", "ntfs3", "")),
    ],
)
def test_is_forgetful_knows_which_file_systems_change_inode_numbers(
    kind: str, forgets: bool
) -> None:
    assert inodes.is_forgetful(kind) is forgets


@pytest.mark.skipif(sys.platform != "linux", reason="the lists of mounts of Linux")
def test_type_of_gives_the_file_system_type_of_a_mount(tmp_path: Path) -> None:
    root = os.open("/", os.O_RDONLY)
    try:
        assert inodes.type_of(root, "proc") == "proc"
        assert inodes.type_of(root, "no such name") == ""
        own = os.stat(tmp_path)
        assert inodes.keeps(own.st_dev, root, str(tmp_path).lstrip("/"))
    finally:
        os.close(root)


def test_a_file_counts_as_changed_when_its_inode_number_or_stamp_differs(tmp_path: Path) -> None:
    folder = os.open(tmp_path, os.O_RDONLY)
    (tmp_path / "f").write_bytes(b"content")
    entry = entry_of(folder, "f", "f")
    assert entry
    put(tmp_path / "new", "another", entry.mtime_ns)
    (tmp_path / "new").rename(tmp_path / "f")
    found = os.stat(tmp_path / "f")
    os.close(folder)

    assert not unchanged(entry, found)
    assert unchanged(entry._replace(ino=inodes.stamp(found)), found)
    assert not unchanged(entry._replace(ino=inodes.stamp(found) - 1), found)


@pytest.mark.parametrize(
    ("number", "age", "grain", "waits"),
    [
        (1 << 63, 0.5, 10**9, True),
        (0, 0.5, 10**9, True),
        (1 << 63, 5, 10**9, False),  # Long ago.
        (1 << 63, -3600, 10**9, False),  # A clock that is set wrong.
        (1 << 63, 0.5, 1, False),  # Exact to the ns.
        (77, 0.5, 10**9, False),  # An inode's number.
    ],
)
def test_settle_waits_only_if_the_file_time_could_hide_a_later_change(
    monkeypatch: pytest.MonkeyPatch, number: int, age: float, grain: int, waits: bool
) -> None:
    slept: list[float] = []
    mtime = MTIME - MTIME % grain
    monkeypatch.setattr(time, "time", lambda: mtime / 1e9 + age)
    monkeypatch.setattr(time, "sleep", slept.append)

    inodes.settle(number, mtime)

    assert [pytest.approx(2 - age, abs=0.01)] * waits == slept

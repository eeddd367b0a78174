"""Gone on with after the source, or the target, has changed: what is delivered is what is there."""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

import engine
from engine import Mode, OnConflict, Phase, Verify
from tests.rig.interrupted import MIB, build_large, build_many, staged, staging, whole
from tests.rig.lanes import nightly
from tests.rig.observers import Listener, Meddler, Stop
from tests.rig.transfers import Run
from tests.rig.trees import MTIME, assert_equal_trees

#: Small files, then a large one; in between the transfer is interrupted.
SMALL, LARGE = 16 * MIB, 90 * MIB
FAST = 80 * MIB


@pytest.fixture
def half(tmp_path: Path, run: Run) -> Callable[..., None]:
    """Bring the small files and a part of the large one to the target, and no more."""
    build_many(tmp_path / "a", SMALL // (32 << 10))
    build_large(tmp_path / "a" / "z" / "large.mov", LARGE)

    def interrupt(arrived: int = 60 * MIB, **options: Any) -> None:
        with pytest.raises(engine.Interrupted) as caught:
            run(Stop(lambda: staged(tmp_path / "b") >= arrived), bwlimit=FAST, **options)
        assert caught.value.kept

    return interrupt


def change_size(root: Path) -> None:
    (root / "reel_0/0/00000.dpx").write_bytes(b"another")


def change_content(root: Path) -> None:
    file = root / "reel_0/0/00000.dpx"
    file.write_bytes(bytes(file.stat().st_size))


def replace(root: Path) -> None:
    """Content that is another, though size and time are the same: it is another inode."""
    file = root / "reel_0/0/00000.dpx"
    (root / "new").write_bytes(bytes(file.stat().st_size))
    os.utime(root / "new", ns=(MTIME, file.stat().st_mtime_ns))
    (root / "new").rename(file)


def change_mode(root: Path) -> None:
    (root / "reel_0/0/00000.dpx").chmod(0o600)
    (root / "reel_1").chmod(0o700)


def remove_file(root: Path) -> None:
    (root / "reel_0/0/00000.dpx").unlink()


def rename_file(root: Path) -> None:
    (root / "reel_0/0/00000.dpx").rename(root / "reel_0/0/renamed.dpx")


def add(root: Path) -> None:
    (root / "reel_0/0/new.dpx").write_bytes(b"new")
    (root / "brand/new").mkdir(parents=True)
    (root / "brand/new/file").write_bytes(b"new")


def remove_folder(root: Path) -> None:
    shutil.rmtree(root / "reel_2")


def remove_empty_folder(root: Path) -> None:
    (root / "empty").rmdir()


def folder_to_file(root: Path) -> None:
    shutil.rmtree(root / "reel_2")
    (root / "reel_2").write_bytes(b"no folder any more")


def file_to_folder(root: Path) -> None:
    file = root / "reel_0/0/00000.dpx"
    file.unlink()
    (file / "deep").mkdir(parents=True)
    (file / "deep" / "file").write_bytes(b"new")


def file_to_link(root: Path) -> None:
    (root / "reel_0/0/00000.dpx").unlink()
    (root / "reel_0/0/00000.dpx").symlink_to("00015.dpx")


def change_link(root: Path) -> None:
    (root / "link").unlink()
    (root / "link").symlink_to("reel_1/1")


def change_large(root: Path) -> None:
    with (root / "z/large.mov").open("r+b") as file:
        file.write(b"another beginning")


def shorten_large(root: Path) -> None:
    os.truncate(root / "z/large.mov", 20 * MIB)


def lengthen_large(root: Path) -> None:
    with (root / "z/large.mov").open("ab") as file:
        file.write(bytes(range(256)))


def remove_large(root: Path) -> None:
    (root / "z/large.mov").unlink()


def remove_folder_of_large(root: Path) -> None:
    shutil.rmtree(root / "z")


def nothing(root: Path) -> None:
    pass


CHANGES = [
    nothing, change_size, change_content, replace, change_mode, remove_file, rename_file, add,
    remove_folder, remove_empty_folder, folder_to_file, file_to_folder, file_to_link, change_link,
    change_large, shorten_large, lengthen_large, remove_large, remove_folder_of_large,
]  # fmt: skip


@pytest.mark.slow
@pytest.mark.parametrize("streams", [1, nightly(4)])
@pytest.mark.parametrize("change", CHANGES)
def test_a_resumed_transfer_delivers_the_source_as_it_is_now(
    tmp_path: Path,
    run: Run,
    half: Callable[..., None],
    change: Callable[[Path], None],
    streams: int,
) -> None:
    half(streams=streams)
    change(tmp_path / "a")
    now = whole(tmp_path / "a")
    listener = Listener()

    report = run(listener, resume=True, streams=streams)

    assert_equal_trees(now, whole(tmp_path / "b"))
    assert (report.status, listener.events) == ("done", [])
    assert report.bytes_resumed >= SMALL // 2
    assert report.files == sum(entry.kind != "folder" for entry in now.values())
    assert report.bytes == sum(
        len(os.readlink(tmp_path / "a" / os.fsdecode(path))) if entry.kind == "link" else entry.size
        for path, entry in now.items()
    )


@pytest.mark.slow
def test_a_resumed_transfer_leaves_a_folder_made_at_the_target_meanwhile_as_it_is(
    tmp_path: Path, run: Run, half: Callable[..., None]
) -> None:
    half()
    remove_folder(tmp_path / "a")
    (tmp_path / "b" / "reel_2").mkdir()
    (tmp_path / "b" / "reel_2").chmod(0o700)
    os.utime(tmp_path / "b" / "reel_2", ns=(5, 5))

    run(resume=True)

    theirs = (tmp_path / "b" / "reel_2").stat()
    assert (theirs.st_mode & 0o777, theirs.st_mtime_ns) == (0o700, 5)


@pytest.mark.slow
def test_filters_of_a_resumed_transfer_leave_out_files_that_had_arrived(
    tmp_path: Path, run: Run, half: Callable[..., None]
) -> None:
    half()

    run(resume=True, filters=(("exclude", "reel_1/"), ("exclude", "large.mov")))

    names = {os.fsdecode(name).partition("/")[0] for name in whole(tmp_path / "b")}
    assert names == {".", "empty", "link", "reel_0", "reel_2", "reel_3", "reel_4", "z"}
    assert os.listdir(tmp_path / "b" / "z") == []


@pytest.mark.slow
@pytest.mark.parametrize("policy", [OnConflict.FAIL, OnConflict.SKIP, OnConflict.OVERWRITE])
def test_a_file_that_appeared_at_the_target_meanwhile_is_a_conflict_on_resume(
    tmp_path: Path, run: Run, half: Callable[..., None], policy: OnConflict
) -> None:
    half()
    theirs = tmp_path / "b" / "reel_0" / "0" / "00000.dpx"
    theirs.parent.mkdir(parents=True)
    theirs.write_bytes(b"theirs")
    ours = (tmp_path / "a" / "reel_0" / "0" / "00000.dpx").read_bytes()

    if policy is OnConflict.FAIL:
        with pytest.raises(engine.TargetExists, match=r"00000\.dpx"):
            run(resume=True, mode=Mode.MOVE, on_conflict=policy)
        assert os.listdir(tmp_path / "b") == ["reel_0"]  # It is permanent, so nothing is kept.
        assert (tmp_path / "a" / "link").is_symlink()
    else:
        report = run(resume=True, on_conflict=policy)
        assert report.status == "done"
        assert staging(tmp_path / "b") == []
    assert theirs.read_bytes() == (ours if policy is OnConflict.OVERWRITE else b"theirs")


@pytest.mark.slow
@pytest.mark.parametrize("verify", Verify)
@pytest.mark.parametrize("streams", [1, 4])
def test_a_resumed_move_removes_nothing_before_all_is_published(
    tmp_path: Path, run: Run, half: Callable[..., None], streams: int, verify: Verify
) -> None:
    options = {"mode": Mode.MOVE, "streams": streams, "verify": verify}
    half(**options)
    before = whole(tmp_path / "a")
    phases: list[Phase] = []

    class Watch(Meddler):
        def phase(self, phase: Phase) -> None:
            phases.append(phase)
            if phase is not Phase.REMOVE_SOURCE:
                assert whole(tmp_path / "a") == before
            if phase in (Phase.CLEANUP, Phase.REMOVE_SOURCE):
                assert_equal_trees(before, whole(tmp_path / "b"))

    report = run(Watch(Phase.SCAN, lambda: None), resume=True, **options)

    assert phases[-1] is Phase.REMOVE_SOURCE
    assert report.bytes_resumed >= SMALL
    assert report.files_removed == report.files == SMALL // (32 << 10) + 2
    assert os.listdir(tmp_path / "a") == []
    assert_equal_trees(before, whole(tmp_path / "b"))


@pytest.mark.slow
def test_a_resumed_move_keeps_a_source_file_that_changed_after_delivery(
    tmp_path: Path, run: Run, half: Callable[..., None]
) -> None:
    half(mode=Mode.MOVE)
    odd = tmp_path / "a" / "reel_0/0/00000.dpx"

    change = Meddler(Phase.REMOVE_SOURCE, lambda: odd.write_bytes(b"second"))
    report = run(change, resume=True, mode=Mode.MOVE)

    assert [(f.path, f.code) for f in report.failures] == [("reel_0/0/00000.dpx", "SOURCE_CHANGED")]
    assert odd.read_bytes() == b"second"
    assert (tmp_path / "b" / "reel_0/0/00000.dpx").stat().st_size == 32 << 10

"""Sources whose inode numbers change while nothing else does: FUSE; FAT and others by type."""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

import engine
from engine import HardLinks, Mode, OnConflict, Phase, Strategy
from tests.engine.fuse import missing, mounted
from tests.rig.interrupted import MIB, build_large, staged, whole
from tests.rig.observers import Listener, Meddler, Stop
from tests.rig.planted_code import Plant
from tests.rig.transfers import Run, endpoint
from tests.rig.trees import MTIME, assert_equal_trees, build_mixed, build_small, put

#: In every agent: on that device each file has another number every tenth of a second.
SHIFTING = """
def _shifting():
    import os, time
    stat, fstat, scandir = os.stat, os.fstat, os.scandir
    class Found:
        def __init__(self, found):
            self._found = found
        def __getattr__(self, name):
            value = getattr(self._found, name)
            if name == "st_ino" and self._found.st_dev == DEVICE:
                value = value % 1000 + int(time.time() * 10) * 1000
            return value
    class Item:
        def __init__(self, item):
            self._item, self.name, self.is_dir = item, item.name, item.is_dir
        def stat(self, follow_symlinks=True):
            return Found(self._item.stat(follow_symlinks=follow_symlinks))
    class Listing:
        def __init__(self, path):
            self._listing = scandir(path)
        def __enter__(self):
            return self
        def __exit__(self, *_):
            self._listing.close()
        def __iter__(self):
            return map(Item, self._listing)
        def __next__(self):
            return Item(next(self._listing))
    os.stat = lambda *args, **kwargs: Found(stat(*args, **kwargs))
    os.lstat = lambda path: Found(stat(path, follow_symlinks=False))
    os.fstat = lambda fd: Found(fstat(fd))
    os.scandir = Listing
_shifting()
"""


@pytest.fixture
def bind(tmp_path: Path, plant: Plant) -> Iterator[Path]:
    """A folder `a` that is shown through FUSE, with numbers that shift; what is behind it."""
    if reason := missing("bindfs", "fusermount3"):
        pytest.skip(reason)
    behind = tmp_path / "behind"
    behind.mkdir()
    with mounted(["bindfs", str(behind)], tmp_path / "a"):
        plant(SHIFTING.replace("DEVICE", str((tmp_path / "a").stat().st_dev)))
        yield behind


SLOWLY = {"bwlimit": 3 * MIB}


@pytest.mark.parametrize("mode", list(Mode))
@pytest.mark.parametrize("strategy", [Strategy.ZIP, Strategy.FILES])
def test_a_tree_arrives_and_a_move_empties_it_when_inode_numbers_change(
    tmp_path: Path, bind: Path, run: Run, mode: Mode, strategy: Strategy
) -> None:
    build_mixed(bind)
    before = whole(bind)

    report = run(mode=mode, strategy=strategy, **SLOWLY)

    assert (report.status, report.failures) == ("done", ())
    assert_equal_trees(before, whole(tmp_path / "b"))
    assert (os.listdir(bind) == []) is (mode is Mode.MOVE)


@pytest.mark.parametrize("streams", [1, 4])
def test_a_large_file_is_resumed_midway_when_its_inode_number_changed(
    tmp_path: Path, bind: Path, run: Run, streams: int
) -> None:
    build_large(bind / "large.mov", 90 * MIB)
    build_small(bind / "small", 50)
    before = whole(bind)
    stop = Stop(lambda: staged(tmp_path / "b") >= 50 * MIB)
    with pytest.raises(engine.Interrupted):
        run(stop, bwlimit=80 * MIB, streams=streams, mode=Mode.MOVE)

    report = run(resume=True, attempt=2, streams=streams, mode=Mode.MOVE)

    assert report.status == "done"
    assert report.bytes_resumed > 20 * MIB
    assert_equal_trees(before, whole(tmp_path / "b"))
    assert os.listdir(bind) == []


def test_a_single_file_is_moved_when_its_inode_number_changes(
    tmp_path: Path, bind: Path, run: Run
) -> None:
    build_large(bind / "large.mov", 5 * MIB)

    report = run(source=endpoint(tmp_path / "a/large.mov"), mode=Mode.MOVE, **SLOWLY)

    assert (report.status, os.listdir(bind)) == ("done", [])


@pytest.mark.parametrize("options", [{"checksum": True}, {"mode": Mode.MOVE}])
def test_delivered_files_are_skipped_when_their_inode_numbers_changed(
    tmp_path: Path, bind: Path, run: Run, options: dict[str, Any]
) -> None:
    build_small(bind, 50)
    run()

    report = run(**options)

    assert (report.status, report.files_skipped) == ("done", 50)


def change(bind: Path) -> None:
    """Other content, of the same size and with the same time."""
    (bind / "f").write_bytes(b"another")
    os.utime(bind / "f", ns=(MTIME, MTIME))


def replace(bind: Path) -> None:
    put(bind / "new", "another", MTIME)
    (bind / "new").rename(bind / "f")


def change_link(bind: Path) -> None:
    (bind / "l").unlink()
    (bind / "l").symlink_to("another")
    os.utime(bind / "l", ns=(MTIME, MTIME), follow_symlinks=False)


@pytest.mark.parametrize("how", [change, replace, change_link])
def test_a_move_keeps_a_file_or_link_changed_without_a_new_size_and_time(
    tmp_path: Path, bind: Path, run: Run, how: Callable[[Path], None]
) -> None:
    (bind / "f").write_bytes(b"content")
    os.utime(bind / "f", ns=(MTIME, MTIME))
    (bind / "l").symlink_to("content")
    os.utime(bind / "l", ns=(MTIME, MTIME), follow_symlinks=False)

    def late() -> None:
        time.sleep(1.1)  # FUSE remembers for a second what it was told of a file.
        how(bind)

    report = run(Meddler(Phase.PUBLISH, late), mode=Mode.MOVE)

    name = "l" if how is change_link else "f"
    assert [(failure.path, failure.code) for failure in report.failures] == [
        (name, "SOURCE_CHANGED")
    ]
    assert os.listdir(bind) == [name]


@pytest.mark.parametrize("kept", list(HardLinks))
def test_hard_links_arrive_as_separate_files_when_inode_numbers_change(
    tmp_path: Path, bind: Path, run: Run, kept: HardLinks
) -> None:
    """Two files may have shown the same number at two moments: to pair them would lose one."""
    for name in ("one", "two"):
        (bind / name).write_text(name)
        os.link(bind / name, bind / f"{name}.again")
    listener = Listener()

    report = run(listener, hard_links=kept, mode=Mode.MOVE)

    assert (report.status, report.files_removed) == ("done", 4)
    for name in ("one", "two"):
        for path in (tmp_path / "b" / name, tmp_path / "b" / f"{name}.again"):
            assert (path.read_text(), path.stat().st_nlink) == (name, 1)
    ((code, sentence, _),) = listener.events
    assert (code, "4 names of hard-linked files" in sentence) == ("HARD_LINKS", True)


def test_a_followed_link_to_an_enclosing_folder_is_reported_when_inode_numbers_change(
    tmp_path: Path, bind: Path, run: Run
) -> None:
    (bind / "x/y").mkdir(parents=True)
    (bind / "x/y/f").write_text("f")
    (bind / "x/y/up").symlink_to("..")
    (bind / "x/z").symlink_to("y")

    report = run(symlinks="follow")

    assert [failure.code for failure in report.failures] == ["LINK_NOT_FOLLOWED"] * 2
    assert (tmp_path / "b/x/z/f").read_text() == "f"


@pytest.mark.parametrize(
    ("source", "target"), [("a", "a"), ("a", "a/in"), ("a/x/y", "a/x"), ("a/x", "a/link/y")]
)
def test_overlapping_source_and_target_are_refused_when_inode_numbers_change(
    tmp_path: Path, bind: Path, run: Run, source: str, target: str
) -> None:
    (bind / "x/y").mkdir(parents=True)
    (bind / "x/y/f").write_text("f")
    (bind / "link").symlink_to("x")

    with pytest.raises(engine.Overlap):
        run(source=endpoint(tmp_path / source), target=endpoint(tmp_path / target))


def test_sibling_source_and_target_are_accepted_when_inode_numbers_change(
    tmp_path: Path, bind: Path, run: Run
) -> None:
    (bind / "x").mkdir()
    (bind / "x/f").write_text("f")
    (bind / "xy").mkdir()

    # The target is FUSE as well: another issue's business, but that nothing refuses it.
    plan = engine.dry_run(
        engine.Request(endpoint(tmp_path / "a/x"), endpoint(tmp_path / "a/xy"), "test")
    )

    assert plan["files"] == 1


def test_overwrite_replaces_the_target_file_when_inode_numbers_change(
    tmp_path: Path, bind: Path, run: Run
) -> None:
    (bind / "f").write_text("ours")
    (tmp_path / "b").mkdir()
    (tmp_path / "b/f").write_text("theirs!")

    report = run(on_conflict=OnConflict.OVERWRITE, mode=Mode.MOVE)

    assert (report.files, (tmp_path / "b/f").read_text()) == (1, "ours")

"""FUSE targets: what had arrived is gone on with, or sent again where it was forged.

The contract of every file system is in `test_contract`. The tests come to root alone, who can
mount; `deploy/test.sh` installs what they need.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest

import engine
from engine import Mode, SilentObserver
from tests.filesystems.kinds import DISKS, FUSE, SECOND, Kind, missing, mounted
from tests.filesystems.mounts import put_on
from tests.rig.interrupted import MIB, build_large, forge, staged, staging
from tests.rig.observers import Stop
from tests.rig.transfers import endpoint
from tests.rig.trees import MTIME

pytestmark = [pytest.mark.slow, pytest.mark.xdist_group("mounts-targets")]
SMALL = 30
KINDS = {**FUSE, "Btrfs": DISKS["Btrfs"]}


class Place:
    """A source tree, and a target on a file system of that kind."""

    def __init__(self, kind: Kind, folder: Path, at: Path) -> None:
        self.kind, self.source, self.at, self.target = kind, folder / "a", at, at / "b"

    def build(self, large: int = 0) -> dict[str, bytes]:
        """Make the source; returns what has to be at the target in the end."""
        for number in range(SMALL):
            file = self.source / f"reel_{number % 3}" / f"clip {number:02}.dpx"
            file.parent.mkdir(parents=True, exist_ok=True)
            file.write_bytes(os.urandom(20_000 + number))
            os.utime(file, ns=(MTIME, MTIME + number * SECOND // 7))
        (self.source / "empty").mkdir(exist_ok=True)
        if self.kind.symlinks:
            (self.source / "link").symlink_to("reel_0")
        if large:
            build_large(self.source / "z" / "large.mov", large)
        return content(self.source)

    def run(self, observer: SilentObserver | None = None, **options: object) -> engine.Report:
        ends = {"source": endpoint(self.source), "target": endpoint(self.target)}
        options = {"transfer_id": "test", **ends, **options}
        return engine.run(engine.Request(**options), observer)


def content(root: Path) -> dict[str, bytes]:
    """Names and bytes of everything below a folder; a symlink's text, nothing for a folder."""
    found = {}
    for path in root.rglob("*"):
        data = b"" if path.is_dir() else path.read_bytes() if path.is_file() else None
        if path.is_symlink():
            data = os.fsencode(path.readlink())
        found[path.relative_to(root).as_posix()] = data
    return found


@pytest.fixture(params=KINDS, ids=lambda name: name.replace(" ", "_"))
def place(request: pytest.FixtureRequest, on_disk: Path) -> Iterator[Place]:
    kind = KINDS[request.param]
    if reason := missing(kind):
        pytest.skip(reason)
    with mounted(kind, on_disk) as at:
        yield Place(kind, on_disk, at)


@pytest.mark.parametrize("mode", Mode)
def test_a_recorded_transfer_to_each_file_system_is_resumed(place: Place, mode: Mode) -> None:
    expected = place.build(large=40 * MIB)
    stop = Stop(lambda: staged(place.target) > 30 * MIB)
    with pytest.raises(engine.Interrupted):
        place.run(stop, bwlimit=40 * MIB, mode=mode, on_record=True)
    assert staging(place.target)

    report = place.run(attempt=2, resume=True, mode=mode, on_record=True)

    assert report.files_resumed >= SMALL // 2
    assert content(place.target) == expected
    assert bool(content(place.source)) == (mode is Mode.COPY)


@pytest.mark.parametrize("mode", Mode)
def test_staged_files_that_were_forged_are_sent_again_on_each_file_system(
    place: Place, mode: Mode
) -> None:
    expected = place.build(large=40 * MIB)
    stop = Stop(lambda: staged(place.target) > 30 * MIB)
    with pytest.raises(engine.Interrupted):
        place.run(stop, bwlimit=40 * MIB, mode=mode, on_record=True)
    (folder,) = staging(place.target)
    forge(folder)

    place.run(attempt=2, resume=True, mode=mode, on_record=True)

    assert content(place.target) == expected
    assert bool(content(place.source)) == (mode is Mode.COPY)


def test_a_symlink_leaves_the_time_of_what_it_names_alone(place: Place) -> None:
    """An SFTP server follows a link to give it its time: so sshfs gave it to any file there."""
    place.build()
    elsewhere = place.source.parent / "elsewhere"
    elsewhere.write_bytes(b"not of this transfer")
    os.utime(elsewhere, ns=(5 * SECOND, 5 * SECOND))
    (place.source / "out").symlink_to(elsewhere)
    (place.source / "to a file").symlink_to("reel_0/clip 00.dpx")

    place.run()

    assert elsewhere.stat().st_mtime_ns == 5 * SECOND
    assert abs((place.target / "to a file").stat().st_mtime_ns - MTIME) < 2 * SECOND


@pytest.mark.parametrize("one_file", [False, True])
def test_a_sparse_file_larger_than_the_target_arrives(on_disk: Path, one_file: bool) -> None:
    """What is written counts, not what a file seems to have."""
    if reason := missing(DISKS["tmpfs"]):
        pytest.skip(reason)
    source, at = on_disk / "a", on_disk / "small"
    source.mkdir()
    at.mkdir()
    with (source / "vm.img").open("wb") as image:
        image.truncate(1 << 30)
        image.seek(5 << 20)
        image.write(os.urandom(MIB))
    with ExitStack() as stack:
        put_on(stack, at, "mount", "-t", "tmpfs", "-o", "size=64m", "none", at)
        ends = {"source": source / "vm.img" if one_file else source, "target": at / "b"}
        places = {name: endpoint(path) for name, path in ends.items()}

        report = engine.run(engine.Request(transfer_id="test", **places))

        assert report.status == "done"
        arrived = at / "b" if one_file else at / "b" / "vm.img"
        assert (arrived.stat().st_size, arrived.stat().st_blocks * 512 < 32 * MIB) == (
            1 << 30,
            True,
        )

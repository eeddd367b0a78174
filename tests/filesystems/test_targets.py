"""Each file system as a target: all arrives, nothing is left over, whatever was interrupted.

The tests come to root alone, who can mount; `deploy/test.sh` installs what they need.
"""

from __future__ import annotations

import os
import signal
from collections.abc import Iterator
from pathlib import Path

import pytest

import engine
from engine import Mode, SilentObserver
from tests.filesystems.mounts import KINDS, Kind, missing, mounted
from tests.rig.command import cli, finish
from tests.rig.interrupted import MIB, build_large, forge, staged, staging
from tests.rig.observers import Stop
from tests.rig.transfers import endpoint
from tests.rig.trees import MTIME
from tests.rig.waiting import wait_until

pytestmark = [pytest.mark.slow, pytest.mark.xdist_group("mounts")]
SMALL = 30


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
            os.utime(file, ns=(MTIME, MTIME - MTIME % (2 * 10**9)))
        (self.source / "empty").mkdir(exist_ok=True)
        if self.kind.links:
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


def test_a_copy_to_each_file_system_arrives_and_a_second_run_succeeds(place: Place) -> None:
    expected = place.build()

    first = finish(cli("--from", place.source, "--to", place.target))
    again = finish(cli("--from", place.source, "--to", place.target, "--checksum"))

    assert (first[0], again[0]) == (0, 0), (first, again)
    assert content(place.target) == expected


def test_a_move_to_each_file_system_over_three_streams_arrives(place: Place) -> None:
    expected = place.build(large=80 * MIB)

    options = ["--mode", "move", "--streams", "3", "--strategy", "files"]
    done = finish(cli("--from", place.source, "--to", place.target, *options))

    assert done[0] == 0, done
    assert content(place.target) == expected
    assert not content(place.source)


def test_an_archive_move_to_each_file_system_delivers_one_archive(place: Place) -> None:
    place.build()

    done = finish(
        cli("--from", place.source, "--to", place.target, "--strategy", "archive", "--mode", "move")
    )

    assert done[0] == 0, done
    assert os.listdir(place.target) == ["a.zip"]
    assert not content(place.source)


def test_a_terminated_copy_to_each_file_system_leaves_nothing(place: Place) -> None:
    place.build(large=60 * MIB)
    command = cli("--from", place.source, "--to", place.target, "--bwlimit", "10M")
    wait_until(lambda: staged(place.target) > 0)

    command.send_signal(signal.SIGTERM)
    ended = finish(command)

    assert ended[0] == 130, ended
    wait_until(lambda: not os.listdir(place.at))


@pytest.mark.parametrize("mode", Mode)
def test_a_killed_transfer_to_each_file_system_is_completed_by_the_next_run(
    place: Place, mode: Mode
) -> None:
    expected = place.build(large=40 * MIB)
    line = ["--from", place.source, "--to", place.target, "--mode", mode.value, "--resume"]
    command = cli(*line, "--bwlimit", "15M")
    wait_until(lambda: staged(place.target) > 8 * MIB)
    command.kill()
    command.communicate()

    done = finish(cli(*line))

    assert done[0] == 0, done
    assert content(place.target) == expected
    assert bool(content(place.source)) == (mode is Mode.COPY)


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
    if place.kind.keeps_owners and mode is Mode.COPY:
        pytest.skip("only this user, whose file it is, can write into the folder there")
    expected = place.build(large=40 * MIB)
    stop = Stop(lambda: staged(place.target) > 30 * MIB)
    with pytest.raises(engine.Interrupted):
        place.run(stop, bwlimit=40 * MIB, mode=mode, on_record=True)
    (folder,) = staging(place.target)
    forge(folder)

    place.run(attempt=2, resume=True, mode=mode, on_record=True)

    assert content(place.target) == expected
    assert bool(content(place.source)) == (mode is Mode.COPY)

"""A transfer takes as long as its rate says, whatever the number of its streams."""

from __future__ import annotations

import os
import shutil
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from engine import Phase, SilentObserver
from tests.rig.command import cli, finish
from tests.rig.interrupted import MIB, build_large, build_many
from tests.rig.lanes import nightly
from tests.rig.transfers import Run
from tests.rig.trees import assert_equal_trees

#: Bytes, bytes per second, and how far from their quotient the time may be.
SIZE, RATE, SLACK = 128 * MIB, 32 * MIB, 0.05

#: A busy machine can make a transfer late but never early: only being late is tried again.
TRIES = 3


def late(due: float) -> float:
    """When something that is due is late: the busier the machine is beside, the more later."""
    beside = os.getloadavg()[0] / (os.cpu_count() or 1)
    return due * (1 + SLACK * max(1.0, 2 * beside))


def written_out(root: Path) -> float:
    """The seconds that the disk takes for SIZE bytes: what arrives counts once the disk has it."""
    began = time.monotonic()
    path = root / "probe"
    with path.open("wb") as file:
        for _ in range(SIZE // MIB):
            file.write(bytes(MIB))
        os.fsync(file.fileno())
    path.unlink()
    return time.monotonic() - began


pytestmark = pytest.mark.slow


class Watch(SilentObserver):
    """Takes the time of the phase in which payload moves."""

    def __init__(self) -> None:
        self.began: dict[Phase, float] = {}

    def phase(self, phase: Phase) -> None:
        self.began[phase] = time.monotonic()

    @property
    def seconds(self) -> float:
        return self.began[Phase.PUBLISH] - self.began[Phase.TRANSFER]


def large(root: Path) -> None:
    build_large(root / "large.mov", SIZE)


def many(root: Path) -> None:
    build_many(root, SIZE // (64 << 10), 64 << 10)


def both(root: Path) -> None:
    build_many(root, SIZE // 2 // (64 << 10), 64 << 10)
    build_large(root / "large.mov", SIZE // 2)


@pytest.mark.parametrize("streams", [nightly(1), 4])
@pytest.mark.parametrize("build", [large, many, both])
def test_bwlimit_applies_to_all_streams_together(
    tmp_path: Path, run: Run, build: Callable[[Path], None], streams: int
) -> None:
    build(tmp_path / "a")
    due = SIZE / RATE

    for _ in range(TRIES):
        shutil.rmtree(tmp_path / "b", ignore_errors=True)
        watch = Watch()
        report = run(watch, streams=streams, bwlimit=RATE)

        assert report.streams == streams
        assert watch.seconds >= due * (1 - SLACK)
        assert_equal_trees(tmp_path / "a", tmp_path / "b")
        if watch.seconds <= late(due) + written_out(tmp_path):
            break
    else:
        pytest.fail(f"late {TRIES} times, at last {watch.seconds:.2f} s instead of {due:.2f} s")


@pytest.mark.parametrize("streams", [nightly(1), 4])
def test_the_command_line_takes_as_long_as_its_bwlimit_says(tmp_path: Path, streams: int) -> None:
    large(tmp_path / "a")
    line = ["--from", tmp_path / "a", "--to", tmp_path / "b", "--streams", str(streams)]
    began = time.monotonic()
    assert finish(cli(*line, "--bwlimit", "1G"))[0] == 0
    unlimited = time.monotonic() - began

    began = time.monotonic()
    line[3] = tmp_path / "c"
    assert finish(cli(*line, "--bwlimit", f"{RATE}"))[0] == 0

    # Starting, publishing and, after slices, reading all once more takes its time besides.
    seconds = time.monotonic() - began
    assert SIZE / RATE * (1 - SLACK) <= seconds <= late(SIZE / RATE) + unlimited

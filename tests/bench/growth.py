"""How time and memory grow with the number of files and with their size."""

from __future__ import annotations

import statistics
from collections.abc import Generator, Iterator
from dataclasses import dataclass, field
from pathlib import Path

from tests.bench import data, lines
from tests.bench.check import totals
from tests.bench.machine import room
from tests.bench.measure import empty
from tests.bench.run import State, timed
from tests.bench.tools import KETTER, Line, Work, find
from tests.rig.memory import TOGETHER, Watch
from tests.rig.sshd import Sshd

#: A million files and 16 GiB take their time; more than this is a hang.
LIMIT_SECONDS = 3600.0
#: Files up to this size are filled; larger ones are holes, which take no room at the source.
FILLED_BYTES = 4 * data.GIB
#: What a tiny file takes at most, in memory and on usual disks.
_TINY_BYTES = 5120

#: The goals: bytes of the largest process; and how far from each other the figures may lie.
MOST_MEMORY = 150_000_000
MOST_SPREAD = 0.15


@dataclass
class Point:
    """One size of one series; `skipped` says why there are no figures.

    `peaks` are the largest of all its rounds, by role.
    """

    series: str  # "files" or "bytes"
    way: str  # "local" or "ssh"
    files: int
    bytes: int = 0
    filled: bool = True
    seconds: list[float] = field(default_factory=list)
    start_seconds: float = 0.0
    peaks: dict[str, int] = field(default_factory=dict)
    skipped: str = ""
    trouble: str = ""

    @property
    def median(self) -> float:
        """The median of the rounds, in seconds."""
        return statistics.median(self.seconds)

    @property
    def per_file(self) -> float | None:
        """Seconds per file, without what a transfer of one file takes."""
        if not self.seconds or self.series != "files":
            return None
        return max(0.0, self.median - self.start_seconds) / self.files

    @property
    def largest(self) -> int:
        """The most memory that any one process had."""
        return max((size for role, size in self.peaks.items() if role != TOGETHER), default=0)


class Growth:
    """Transfers of growing size; every point is measured `rounds` times, large files once."""

    def __init__(self, folder: Path, files: list[int], sizes: list[int], rounds: int) -> None:
        self._folder = folder
        self._files = sorted(files)
        self._sizes = sorted(sizes)
        self._rounds = rounds
        self._tool = find()[0][KETTER]

    def measure(self) -> Generator[Point, None, None]:
        """The points, each as soon as it is known."""
        if self._files:
            with Sshd() as server:
                yield from self._all_files(lines.near(server))
        for size in self._sizes:
            yield self._one(size)

    def _all_files(self, line: Line) -> Iterator[Point]:
        starts = {"local": self._start(None), "ssh": self._start(line)}
        # The middle one: large enough to tell, small enough not to take the whole day.
        over_ssh = self._files[(len(self._files) - 1) // 2]
        for number in self._files:
            yield from self._many(number, line if number == over_ssh else None, starts)

    def _start(self, line: Line | None) -> float:
        """What a transfer takes that has next to nothing to transfer."""
        point = Point("files", "", 1)
        source = self._folder / "source"
        data.build_many(source, 1)
        for _ in range(self._rounds + 1):
            self._carry(point, source, line)
        empty(source)
        # The first one finds Python's compiled files missing.
        return statistics.median(point.seconds[1:]) if point.seconds[1:] else 0.0

    def _many(self, number: int, line: Line | None, starts: dict[str, float]) -> Iterator[Point]:
        local = Point("files", "local", number, start_seconds=starts["local"])
        if skipped := self._no_room(2 * number * _TINY_BYTES):
            local.skipped = skipped
            yield local
            return
        source = self._folder / "source"
        local.bytes = data.build_many(source, number)
        for _ in range(self._rounds):
            self._carry(local, source, None)
        yield local
        if line:
            far = Point("files", "ssh", number, local.bytes, start_seconds=starts["ssh"])
            for _ in range(self._rounds):
                self._carry(far, source, line)
            yield far
        empty(source)

    def _one(self, size: int) -> Point:
        filled = size <= FILLED_BYTES
        point = Point("bytes", "local", 1, size, filled)
        point.skipped = self._no_room(size * 2 if filled else size)
        if not point.skipped:
            source = self._folder / "source"
            source.mkdir()
            (data.fill if filled else data.hollow)(source / "tape.mov", size)
            self._carry(point, source, None)
            empty(source)
        return point

    def _carry(self, point: Point, source: Path, line: Line | None) -> None:
        """Transfer once, note time and memory, make sure that it arrived, remove it."""
        target = self._folder / "target"
        command = self._tool.command(Work(source, target, line))
        with Watch() as watch:
            ended = timed(command, LIMIT_SECONDS)
        if ended.state is not State.DONE:
            point.trouble = f"{ended.state}: {ended.note}"
        elif totals(source) != totals(target):
            point.trouble = f"{totals(target)} arrived of {totals(source)}"
        else:
            point.seconds.append(round(ended.seconds, 4))
            for role, peak in watch.peaks.items():
                point.peaks[role] = max(peak, point.peaks.get(role, 0))
        empty(target)

    def _no_room(self, needed: int) -> str:
        there = room(self._folder)
        if needed <= there:
            return ""
        return f"needs {needed / 1e9:.1f} GB, and there is room for {max(there, 0) / 1e9:.1f} GB"

"""All cases with all tools, round by round."""

from __future__ import annotations

import contextlib
import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Generator, Iterator
from dataclasses import asdict, dataclass, field
from pathlib import Path

from tests.bench import data, lines
from tests.bench.cases import ONCE, ROUND_TRIP, Case, Way
from tests.bench.check import difference
from tests.bench.machine import room
from tests.bench.run import Ended, State, timed, wait_for_far_ends
from tests.bench.tools import KETTER, Line, Tool, Work, copy_aside
from tests.rig.sshd import Sshd


@dataclass(frozen=True)
class Run:
    """One tool did one case once."""

    round: int
    case: str
    tool: str
    state: State
    seconds: float
    note: str = ""


@dataclass(kw_only=True)
class Ground:
    """Where the cases are run: their data, the server, a fresh target for every run."""

    cases: list[Case]
    folder: Path
    scale: float
    limit: float

    def build(self) -> dict[str, Path]:
        """Make the data of all cases; the sources by the data's name. Refuse what has no room."""
        self._refuse_if_too_large()
        return {case.data: data.build(case.data, self.folder, self.scale) for case in self.cases}

    def _refuse_if_too_large(self) -> None:
        sizes = {case.data: data.bytes_of(case.data, self.scale) for case in self.cases}
        needed, there = sum(sizes.values()) + max(sizes.values()), room(self.folder)
        if needed > there:
            raise SystemExit(
                f"{self.folder} has room for {there / 1e9:.1f} GB and the data needs "
                f"{needed / 1e9:.1f} GB; choose another --folder, fewer --cases or a smaller "
                "--scale."
            )

    @contextlib.contextmanager
    def server(self) -> Iterator[tuple[Sshd | None, dict[Way, Line | None]]]:
        """An sshd, and the ways to it that the cases need."""
        used = {case.way for case in self.cases}
        ways: dict[Way, Line | None] = {Way.LOCAL: None}
        with contextlib.ExitStack() as stack:
            server = stack.enter_context(Sshd()) if used != {Way.LOCAL} else None
            if server:
                ways[Way.NEAR] = lines.near(server)
            if server and Way.FAR in used:
                ways[Way.FAR] = stack.enter_context(lines.far(server, ROUND_TRIP))
            yield server, ways

    def work(self, case: Case, source: Path, ways: dict[Way, Line | None]) -> Work:
        """A fresh place for one run."""
        place = self.folder / "target"
        place.mkdir()
        work = Work(source, place / source.name, ways[case.way], case.again)
        if case.again:
            copy_aside(source, work.target)
        # What others have written must not be this tool's to wait for.
        os.sync()
        return work


@dataclass(kw_only=True)
class Bench(Ground):
    """What is to be measured, and what was so far."""

    tools: dict[str, Tool]
    rounds: int
    runs: list[Run] = field(default_factory=list)

    def measure(self) -> Generator[Run, None, None]:
        """Build the data, then have every round run every tool once per case."""
        sources = self.build()
        with self.server() as (server, ways):
            for number in range(self.rounds):
                for case in self.cases:
                    for tool in self._order(case, number):
                        work = self.work(case, sources[case.data], ways)
                        self.runs.append(self._run(number, case, tool, work, server))
                        yield self.runs[-1]

    def _order(self, case: Case, number: int) -> list[Tool]:
        """The tools of a case in this round; each round begins with another one."""
        names = [
            name
            for name in (KETTER, *case.peers)
            if name in self.tools and (number == 0 or (case.name, name) not in ONCE)
        ]
        first = number % len(names)
        return [self.tools[name] for name in names[first:] + names[:first]]

    def _run(self, number: int, case: Case, tool: Tool, work: Work, server: Sshd | None) -> Run:
        ended = timed(tool.command(work), self.limit)
        if ended.state is State.STOPPED and server:
            wait_for_far_ends(server)
        if ended.state is State.DONE:
            ended.note = self._wrong(case, tool, work, ended)
            ended.state = State.WRONG if ended.note else State.DONE
        empty(work.target.parent)
        return Run(number, case.name, tool.name, ended.state, round(ended.seconds, 4), ended.note)

    def _wrong(self, case: Case, tool: Tool, work: Work, ended: Ended) -> str:
        compared = any(
            (run.case, run.tool, run.state) == (case.name, tool.name, State.DONE)
            for run in self.runs
        )
        if tool.name == KETTER and (sent := sent_again(case, ended)):
            return sent
        return difference(work.source, work.target, content=not compared)

    def as_data(self) -> list[dict[str, object]]:
        """The runs as plain data."""
        return [asdict(run) for run in self.runs]


def sent_again(case: Case, ended: Ended) -> str:
    """What Ketter sent though it was there already, in a few words; empty if it sent nothing."""
    sent = json.loads(ended.output).get("bytes") if case.again else 0
    return f"{sent} bytes were sent again" if sent != 0 else ""


def empty(folder: Path) -> None:
    """Remove a folder that may hold a million files."""
    subprocess.run(["rm", "-rf", str(folder)], check=True)


@contextlib.contextmanager
def fresh_folder(where: Path) -> Iterator[Path]:
    """A folder below `where`, of which nothing remains."""
    folder = Path(tempfile.mkdtemp(prefix="ketter-bench-", dir=where))
    try:
        yield folder
    finally:
        empty(folder)


def log(line: str) -> None:
    """Tell whoever watches how far it is."""
    print(line, file=sys.stderr, flush=True)

"""This checkout against a commit: the same cases with both engines, in turns."""

from __future__ import annotations

import statistics
from collections.abc import Generator
from dataclasses import asdict, dataclass, field
from pathlib import Path

from tests.bench.cases import Case
from tests.bench.check import difference
from tests.bench.costs import Meter, machine
from tests.bench.measure import Ground, empty, sent_again
from tests.bench.paired import Figure, Rules, Verdict, judge, wants_more
from tests.bench.run import State, timed, wait_for_far_ends
from tests.bench.tools import KETTER, Tool, Work
from tests.rig.sshd import Sshd

BASE, HERE = "base", "here"
#: A quick case runs several times a round, until either tree has run for about so many seconds.
ROUND_SECONDS = 4.0
MOST_REPEATS = 6
QUICK_SCALE = 0.1
#: The round that only warms up, and in which every byte at the target is compared.
WARMING = 0


@dataclass(frozen=True)
class Trial:
    """One tree did one case once."""

    round: int
    case: str
    tree: str
    state: State
    seconds: float
    processor: float
    #: Processor seconds that everything else on this machine took meanwhile.
    others: float
    note: str = ""


@dataclass(frozen=True)
class Outcome:
    """What the rounds of a case say. Figures are None if no round came to its end."""

    case: Case
    verdict: Verdict
    why: str
    wall: Figure | None
    processor: Figure | None
    #: Median seconds by tree.
    seconds: dict[str, float]
    #: How many processors everything else on this machine kept busy.
    others: float


@dataclass(kw_only=True)
class Against(Ground):
    """What is to be compared, and what was so far."""

    trees: dict[str, Path]
    rules: Rules
    round_seconds: float = ROUND_SECONDS
    trials: list[Trial] = field(default_factory=list)

    def measure(self, program: str) -> Generator[Trial, None, None]:
        """Warm up, then run round after round the cases that are not decided yet."""
        sources = self.build()
        with self.server() as (server, ways):
            runner = _Runner(Tool(KETTER, program, ""), server, self.limit)
            for number in range(WARMING, self.rules.most + 1):
                for case in [case for case in self.cases if self.goes_on(case)]:
                    for tree in self._turns(case, number):
                        work = self.work(case, sources[case.data], ways)
                        folder = self.trees[tree]
                        self.trials.append(runner.run(number, case, tree, folder, work))
                        yield self.trials[-1]

    def goes_on(self, case: Case) -> bool:
        """Whether a case needs one more round."""
        trials = self.of(case)
        if any(trial.state is not State.DONE for trial in trials):
            return False
        return wants_more(*self.figures(case), self.rules)

    def outcome(self, case: Case) -> Outcome:
        """What a case came to."""
        trials = self.of(case)
        seconds = {
            tree: statistics.median(
                [trial.seconds for trial in trials if trial.tree == tree and trial.round > WARMING]
                or [0.0]
            )
            for tree in (BASE, HERE)
        }
        total = sum(trial.seconds for trial in trials)
        others = sum(trial.others for trial in trials) / total if total else 0.0
        if bad := [trial for trial in trials if trial.state is not State.DONE]:
            # Where the base itself fails there is nothing to compare with.
            ours = any(trial.tree == HERE for trial in bad)
            verdict = Verdict.FAILED if ours else Verdict.UNMEASURED
            trial = next(trial for trial in bad if not ours or trial.tree == HERE)
            why = f"{trial.tree}, round {trial.round}: {trial.state}: {trial.note}"
            return Outcome(case, verdict, why, None, None, seconds, others)
        wall, processor = self.figures(case)
        if len(wall.ratios) < self.rules.first:
            why = f"{len(wall.ratios)} rounds of {self.rules.first} were run"
            return Outcome(case, Verdict.UNMEASURED, why, None, None, seconds, others)
        verdict, why = judge(wall, processor, self.rules)
        return Outcome(case, verdict, why, wall, processor, seconds, others)

    def figures(self, case: Case) -> tuple[Figure, Figure]:
        """Wall and processor time: here / base within each round that is complete.

        Of several runs in a round the median's wall time counts, which one run that was
        held up does not move; and all processor time, for sshd's part comes in steps of 10 ms.
        """
        trials = [trial for trial in self.of(case) if trial.round > WARMING]
        wall, processor = [], []
        for number in sorted({trial.round for trial in trials}):
            here, base = (
                [trial for trial in trials if (trial.round, trial.tree) == (number, tree)]
                for tree in (HERE, BASE)
            )
            if len(here) != len(base):
                continue
            wall.append(_wall(here) / _wall(base))
            # Nothing is counted where a system keeps no account: then neither is it compared.
            spent = _processor(base)
            processor.append(_processor(here) / spent if spent else 1.0)
        return Figure(tuple(wall)), Figure(tuple(processor))

    def of(self, case: Case) -> list[Trial]:
        """The trials of a case."""
        return [trial for trial in self.trials if trial.case == case.name]

    def as_data(self) -> list[dict[str, object]]:
        """The trials as plain data."""
        return [asdict(trial) for trial in self.trials]

    def _turns(self, case: Case, number: int) -> list[str]:
        """The trees in the order of a round: ABBA, and BAAB in the next one.

        So a machine that becomes slower, or warmer, is so for both alike.
        """
        if number == WARMING:
            return [BASE, HERE]
        first, second = (BASE, HERE) if number % 2 else (HERE, BASE)
        slower = max(trial.seconds for trial in self.of(case) if trial.round == WARMING)
        repeats = round(self.round_seconds / 2 / max(slower, 0.01))
        return [first, second, second, first] * min(max(repeats, 1), MOST_REPEATS)


class _Runner:
    """Runs one engine once, and says what that took and whether all arrived."""

    def __init__(self, tool: Tool, server: Sshd | None, limit: float) -> None:
        self._tool = tool
        self._server = server
        self._meter = Meter(server)
        self._limit = limit

    def run(self, number: int, case: Case, tree: str, folder: Path, work: Work) -> Trial:
        """The trial of a tree, of which nothing remains."""
        before, began = self._meter.spent(), machine()
        ended = timed(self._tool.command(work), self._limit, folder)
        busy = machine().busy - began.busy
        if self._server:
            wait_for_far_ends(self._server)
        processor = self._meter.spent() - before
        if ended.state is State.DONE:
            ended.note = sent_again(case, ended) or difference(
                work.source, work.target, content=number == WARMING
            )
            ended.state = State.WRONG if ended.note else State.DONE
        empty(work.target.parent)
        return Trial(
            round=number,
            case=case.name,
            tree=tree,
            state=ended.state,
            seconds=round(ended.seconds, 4),
            processor=round(processor, 4),
            others=round(max(0.0, busy - processor), 4),
            note=ended.note,
        )


def _wall(trials: list[Trial]) -> float:
    return statistics.median(trial.seconds for trial in trials)


def _processor(trials: list[Trial]) -> float:
    return sum(trial.processor for trial in trials)

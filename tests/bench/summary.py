"""From single runs to what they say: medians, ratios within a round, goals met or not."""

from __future__ import annotations

import statistics
from collections.abc import Iterable
from dataclasses import dataclass

from tests.bench.cases import ONCE, Case, Goal
from tests.bench.measure import Run
from tests.bench.run import State
from tests.bench.tools import KETTER, TITLES


@dataclass(frozen=True)
class Ratio:
    """The median over the rounds of Ketter's time / the peer's.

    `at_most`: the peer was stopped at the limit, so that the true ratio is smaller.
    """

    value: float
    at_most: bool
    rounds: int

    def __str__(self) -> str:
        return f"{'< ' if self.at_most else ''}{self.value:.2f}"


@dataclass(frozen=True)
class Verdict:
    """What became of a goal; `met` is None where it could not be measured, and `note` says why."""

    case: str
    goal: Goal
    ratio: Ratio | None
    met: bool | None
    note: str = ""

    @property
    def peers(self) -> str:
        """Against whom."""
        names = ", ".join(TITLES[name] for name in self.goal.peers)
        return f"best of {names}" if len(self.goal.peers) > 1 else names


class Summary:
    """What the runs of one measurement say."""

    def __init__(self, runs: Iterable[Run], limit: float, missing: dict[str, str]) -> None:
        self._runs = list(runs)
        self._limit = limit
        self._missing = missing

    def median(self, case: str, tool: str) -> float | None:
        """The median seconds of the runs that came to a good end."""
        times = [run.seconds for run in self._of(case, tool) if run.state is State.DONE]
        return statistics.median(times) if times else None

    def ratio(self, case: str, peers: tuple[str, ...]) -> Ratio | None:
        """Ketter against the best of the peers, compared within each round."""
        found = []
        for ours in self._of(case, KETTER):
            theirs = [
                (self._limit if run.state is State.STOPPED else run.seconds, run.state)
                for peer in peers
                for run in self._of(case, peer)
                if run.round == ours.round and run.state in (State.DONE, State.STOPPED)
            ]
            if theirs and ours.state is State.DONE:
                seconds, state = min(theirs)
                found.append((ours.seconds / seconds, state is State.STOPPED))
        if not found:
            return None
        value = statistics.median(ratio for ratio, _ in found)
        return Ratio(value, any(at_most for _, at_most in found), len(found))

    def cell(self, case: Case, tool: str) -> str:
        """What a table shows for a tool in a case."""
        if tool != KETTER and tool not in case.peers:
            return "-"
        if tool in self._missing:
            return "missing"
        runs = self._of(case.name, tool)
        if bad := [run for run in runs if run.state in (State.FAILED, State.WRONG)]:
            return f"**{bad[0].state}**"
        seconds = self.median(case.name, tool)
        shown = "" if seconds is None else f"{seconds:.2f} s"
        if any(run.state is State.STOPPED for run in runs):
            shown = f"> {self._limit:g} s"
        ratio = self.ratio(case.name, (tool,)) if tool != KETTER else None
        once = " *" if (case.name, tool) in ONCE else ""
        return f"{shown} ({ratio}){once}" if ratio else f"{shown}{once}"

    def verdict(self, case: Case, goal: Goal) -> Verdict:
        """Whether a goal is met."""
        absent = [TITLES[peer] for peer in goal.peers if peer in self._missing]
        note = f"without {', '.join(absent)}, which is missing" if absent else ""
        ratio = self.ratio(case.name, goal.peers)
        if ratio is None:
            if len(absent) == len(goal.peers):
                return Verdict(case.name, goal, None, None, f"{', '.join(absent)} is missing")
            return Verdict(case.name, goal, None, None, "no round in which both came to an end")
        met: bool | None = ratio.value <= goal.limit
        if ratio.at_most and not met:
            met, note = None, "the peer was stopped before this could be told"
        return Verdict(case.name, goal, ratio, met, note)

    def troubles(self) -> list[str]:
        """A sentence for every run that did not do what it should have."""
        return [
            f"{TITLES[run.tool]}, {run.case}, round {run.round + 1}: {run.state}: {run.note}"
            for run in self._runs
            if run.state in (State.FAILED, State.WRONG)
        ]

    def _of(self, case: str, tool: str) -> list[Run]:
        return [run for run in self._runs if (run.case, run.tool) == (case, tool)]


def verdicts(summary: Summary, cases: list[Case]) -> list[Verdict]:
    """All goals of all cases."""
    return [summary.verdict(case, goal) for case in cases for goal in case.goals]


def yes_or_no(met: bool | None) -> str:
    """A verdict as a word."""
    return "not measured" if met is None else "yes" if met else "**no**"

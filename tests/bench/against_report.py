"""What a comparison with a commit says, as Markdown and as JSON."""

from __future__ import annotations

from dataclasses import asdict
from typing import Any

from tests.bench.against import BASE, HERE, Against, Outcome
from tests.bench.machine import in_words
from tests.bench.paired import Figure, Verdict

#: Exit statuses. 2 is a wrong request.
NOTHING_SLOWER, SLOWER, NOT_MEASURED = 0, 1, 3


def status(outcomes: list[Outcome]) -> int:
    """The exit status: what is slower, or failed, comes before what could not be measured."""
    found = {outcome.verdict for outcome in outcomes}
    if found & {Verdict.SLOWER, Verdict.FAILED}:
        return SLOWER
    return NOT_MEASURED if Verdict.UNMEASURED in found else NOTHING_SLOWER


def as_json(against: Against, machine: dict[str, Any], base: str) -> dict[str, Any]:
    """Everything that was measured, with what it says."""
    return {
        "kind": "against",
        "machine": machine,
        "base": base,
        "scale": against.scale,
        "rules": asdict(against.rules),
        "cases": [_case(against.outcome(case)) for case in against.cases],
        "trials": against.as_data(),
    }


def _case(outcome: Outcome) -> dict[str, Any]:
    return {
        "name": outcome.case.name,
        "about": outcome.case.about,
        "way": outcome.case.way.value,
        "verdict": outcome.verdict.value,
        "why": outcome.why,
        "median_seconds": outcome.seconds,
        "others_processors": outcome.others,
        "wall": _figure(outcome.wall),
        "processor": _figure(outcome.processor),
    }


def _figure(figure: Figure | None) -> dict[str, Any] | None:
    if figure is None:
        return None
    names = ("value", "low", "high", "spread")
    return {"ratios": list(figure.ratios), **{name: getattr(figure, name) for name in names}}


def as_markdown(against: Against, machine: dict[str, Any], base: str) -> str:
    """One table, and below it a sentence for every case that is slower or not measured."""
    outcomes = [against.outcome(case) for case in against.cases]
    rules = against.rules
    how = (
        f"This checkout against {base[:7]}, in turns (ABBA): {rules.first} rounds, up to "
        f"{rules.most} where the spread is above {rules.spread:.0%}. Ratios are here / base, "
        "medians of the rounds' ratios; ± is the spread."
    )
    lines = [f"{in_words(machine)}.", "", how]
    if against.scale != 1:
        lines.append(f"**At scale {against.scale:g}**: the names tell scale 1.")
    lines += [
        "",
        "| case | base | here | wall time | processor time | rounds | others | |",
        "| --- " * 8 + "|",
        *(_row(outcome) for outcome in outcomes),
    ]
    for verdict, title in _TITLES.items():
        if found := [outcome for outcome in outcomes if outcome.verdict is verdict]:
            lines += ["", f"{title}:", ""]
            lines += [f"- `{outcome.case.name}`: {_why(outcome)}" for outcome in found]
    if all(outcome.verdict is Verdict.PASSED for outcome in outcomes):
        lines += ["", f"Nothing is slower by more than {rules.limit - 1:.0%}."]
    return "\n".join(lines)


_TITLES = {
    Verdict.SLOWER: "**Slower**",
    Verdict.FAILED: "**Failed**",
    Verdict.UNMEASURED: "**Not measured**, so not passed either",
}


def _why(outcome: Outcome) -> str:
    """The reason, and for an uncertain one what kept the machine busy meanwhile."""
    if outcome.verdict is not Verdict.UNMEASURED or outcome.wall is None:
        return outcome.why
    told = f"{outcome.why}; others kept {outcome.others:.2f} processors busy meanwhile"
    if outcome.processor:
        told += f"; processor time {_shown(outcome.processor)}"
    return f"{told}. Measure it again on a quiet machine."


def _row(outcome: Outcome) -> str:
    case = outcome.case
    cells = [
        f"`{case.name}`: {case.about}, {case.way.value}",
        *(f"{outcome.seconds[tree]:.2f} s" for tree in (BASE, HERE)),
        _shown(outcome.wall),
        _shown(outcome.processor),
        str(len(outcome.wall.ratios)) if outcome.wall else "-",
        f"{outcome.others:.2f}",
        outcome.verdict if outcome.verdict is Verdict.PASSED else f"**{outcome.verdict}**",
    ]
    return f"| {' | '.join(cells)} |"


def _shown(figure: Figure | None) -> str:
    return f"{figure.value:.3f} ± {figure.spread:.1%}" if figure else "-"

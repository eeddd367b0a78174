"""The comparison as Markdown and as JSON."""

from __future__ import annotations

from dataclasses import asdict
from typing import Any

from tests.bench.cases import ONCE
from tests.bench.machine import in_words
from tests.bench.measure import Bench
from tests.bench.summary import Summary, Verdict, verdicts, yes_or_no
from tests.bench.tools import KETTER, TITLES


def as_json(bench: Bench, machine: dict[str, Any], missing: dict[str, str]) -> dict[str, Any]:
    """Everything that was measured, with what it says."""
    summary = Summary(bench.runs, bench.limit, missing)
    return {
        "kind": "compare",
        "machine": machine,
        "rounds": bench.rounds,
        "scale": bench.scale,
        "limit_seconds": bench.limit,
        "tools": {tool.name: tool.version for tool in bench.tools.values()},
        "missing": missing,
        "cases": [
            {
                "name": case.name,
                "about": case.about,
                "way": case.way.value,
                "median_seconds": {
                    tool: summary.median(case.name, tool) for tool in (KETTER, *case.peers)
                },
                "ratios": {
                    peer: asdict(ratio) if (ratio := summary.ratio(case.name, (peer,))) else None
                    for peer in case.peers
                },
                "goals": [
                    _goal(summary.verdict(case, goal)) for goal in case.goals
                ],
            }
            for case in bench.cases
        ],
        "troubles": summary.troubles(),
        "runs": bench.as_data(),
    }  # fmt: skip


def _goal(verdict: Verdict) -> dict[str, Any]:
    return {
        "peers": list(verdict.goal.peers),
        "limit": verdict.goal.limit,
        "ratio": verdict.ratio.value if verdict.ratio else None,
        "at_most": bool(verdict.ratio and verdict.ratio.at_most),
        "met": verdict.met,
        "note": verdict.note,
    }


def as_markdown(bench: Bench, machine: dict[str, Any], missing: dict[str, str]) -> str:
    """Two tables: times with ratios, and the goals."""
    summary = Summary(bench.runs, bench.limit, missing)
    used = {peer for case in bench.cases for peer in case.peers}
    tools = [name for name in TITLES if name == KETTER or name in used]
    lines = [
        f"{in_words(machine)}.",
        "",
        _how(bench.rounds),
    ]
    if bench.scale != 1:
        lines.append(
            f"**At scale {bench.scale:g}**: the names tell scale 1, and the goals are meant for it."
        )
    if absent := [f"{TITLES[name]} ({missing[name]})" for name in tools if name in missing]:
        lines.append(f"Missing here: {', '.join(absent)}.")
    lines += [
        "",
        *_row(["case", *(TITLES[tool] for tool in tools)]),
        "| --- " * len(tools) + "| --- |",
    ]
    for case in bench.cases:
        name = f"`{case.name}`: {case.about}, {case.way.value}"
        lines += _row([name, *(summary.cell(case, tool) for tool in tools)])
    if any((case.name, tool) in ONCE for case in bench.cases for tool in tools):
        lines += ["", "\\* slow, so in the first round only."]
    lines += ["", *_row(["case", "against", "ratio", "goal", "met"]), "| --- " * 5 + "|"]
    for verdict in verdicts(summary, bench.cases):
        lines += _row(_verdict_cells(verdict))
    return "\n".join([*lines, *_troubles(summary)])


def _how(rounds: int) -> str:
    times = "Times of one round" if rounds == 1 else f"Medians of {rounds} rounds"
    return f"{times}; in brackets Ketter / peer, median of the ratios within each round."


def _verdict_cells(verdict: Verdict) -> list[str]:
    note = f" ({verdict.note})" if verdict.note else ""
    return [
        f"`{verdict.case}`",
        verdict.peers,
        str(verdict.ratio) if verdict.ratio else "-",
        f"≤ {verdict.goal.limit:g}",
        yes_or_no(verdict.met) + note,
    ]


def _troubles(summary: Summary) -> list[str]:
    troubles = summary.troubles()
    return ["", "Went wrong:", "", *(f"- {line}" for line in troubles)] if troubles else []


def _row(cells: list[str]) -> list[str]:
    return [f"| {' | '.join(cells)} |"]

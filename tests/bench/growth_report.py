"""The growth as Markdown, as JSON and as a drawing."""

from __future__ import annotations

from dataclasses import asdict
from typing import Any

from tests.bench.growth import FILLED_BYTES, MOST_MEMORY, MOST_SPREAD, Point
from tests.bench.machine import in_words
from tests.bench.plot import Panel, machine_line, panels
from tests.bench.summary import yes_or_no
from tests.rig.memory import TOGETHER

#: From so many files on memory has to be flat; below, the start is most of it.
FLAT_FROM = 100_000
_GIB = 1 << 30


def goals(points: list[Point]) -> list[dict[str, Any]]:
    """The goals with what was measured and whether they are met (None: not measured)."""
    local = [point for point in _of(points, "files") if point.way == "local"]
    flat = [point for point in local if point.files >= FLAT_FROM]
    measured = [point.largest for point in points if point.largest]
    return [
        _spread("time per file is constant", [point.per_file or 0.0 for point in local]),
        {
            "goal": f"no process takes more than {MOST_MEMORY / 1e6:g} MB",
            "unit": "bytes",
            "value": max(measured, default=None),
            "met": max(measured) <= MOST_MEMORY if measured else None,
        },
        _spread(
            f"memory is flat from {FLAT_FROM:,} files on",
            [float(point.largest) for point in flat if point.largest],
        ),
        _spread(
            "memory is flat for files of any size",
            [float(point.largest) for point in _of(points, "bytes") if point.largest],
        ),
    ]


def _spread(goal: str, values: list[float]) -> dict[str, Any]:
    """How far the largest is above the smallest."""
    enough = len(values) > 1 and min(values) > 0
    value = max(values) / min(values) - 1 if enough else None
    return {
        "goal": f"{goal} within {MOST_SPREAD:.0%}",
        "unit": "part above the smallest",
        "value": value,
        "met": None if value is None else value <= MOST_SPREAD,
    }


def as_json(points: list[Point], machine: dict[str, Any], rounds: int) -> dict[str, Any]:
    """Everything that was measured, with what it says."""
    return {
        "kind": "growth",
        "machine": machine,
        "rounds": rounds,
        "points": [
            {**asdict(point), "seconds_per_file": point.per_file, "largest_bytes": point.largest}
            for point in points
        ],
        "goals": goals(points),
    }


def as_markdown(points: list[Point], machine: dict[str, Any], rounds: int) -> str:
    """A table of all points, and the goals."""
    roles = _roles(points)
    starts = {point.way: point.start_seconds for point in points if point.start_seconds}
    told = ", ".join(f"{seconds:.2f} s {_WAYS[way]}" for way, seconds in starts.items()) or "-"
    lines = [
        f"{in_words(machine)}.",
        "",
        f"Tiny files: medians ({rounds} rounds); time per file is without the start ({told}).",
        f"Large files: one round; above {FILLED_BYTES // _GIB} GiB the source is a hole.",
        "Memory is the peak of the largest process of each kind, in MB.",
        "",
        _row(["what", "time", "per file", *roles]),
        "| --- " * (len(roles) + 3) + "|",
        *(_row(_cells(point, roles)) for point in points),
        "",
        _row(["goal", "measured", "met"]),
        "| --- | --- | --- |",
    ]
    for goal in goals(points):
        lines.append(_row([goal["goal"], _value(goal), yes_or_no(goal["met"])]))
    return "\n".join(lines)


_WAYS = {"local": "on this machine", "ssh": "over SSH"}


def _cells(point: Point, roles: list[str]) -> list[str]:
    many = point.series == "files"
    what = f"{point.files:,} files" if many else f"one file of {point.bytes / _GIB:g} GiB"
    what += f", {_WAYS[point.way]}" + ("" if point.filled else ", a hole")
    if point.skipped or point.trouble or not point.seconds:
        return [what, point.trouble or f"skipped: {point.skipped}", "-", *("-" for _ in roles)]
    peaks = [f"{point.peaks[role] / 1e6:.0f}" if role in point.peaks else "-" for role in roles]
    per_file = f"{(point.per_file or 0) * 1e6:.1f} µs" if many else "-"
    return [what, f"{point.median:.2f} s", per_file, *peaks]


def _value(goal: dict[str, Any]) -> str:
    value = goal["value"]
    if value is None:
        return "-"
    return f"{value / 1e6:.0f} MB" if goal["unit"] == "bytes" else f"{value:.0%}"


def drawing(points: list[Point], machine: dict[str, Any]) -> str:
    """Time per file and peak memory over the number of files, and memory over size."""
    many, large = _of(points, "files"), _of(points, "bytes")
    shown = []
    if many:
        ticks = {float(point.files): f"{point.files:,}" for point in many}
        times = {
            _WAYS[way]: [
                (float(point.files), (point.per_file or 0.0) * 1e6)
                for point in many
                if point.way == way
            ]
            for way in dict.fromkeys(point.way for point in many)
        }
        shown.append(Panel("Microseconds per file over the number of files", ticks, times))
        local = [point for point in many if point.way == "local"]
        title = "Peak memory in MB over the number of files, on this machine"
        shown.append(Panel(title, ticks, _memory(local, "files"), MOST_MEMORY / 1e6))
    if large:
        ticks = {float(point.bytes): f"{point.bytes / _GIB:g} GiB" for point in large}
        title = "Peak memory in MB over the size of one file"
        shown.append(Panel(title, ticks, _memory(large, "bytes"), MOST_MEMORY / 1e6))
    return panels(shown, "How Ketter grows", machine_line(machine))


def _memory(points: list[Point], over: str) -> dict[str, list[tuple[float, float]]]:
    return {
        role: [
            (float(getattr(point, over)), point.peaks[role] / 1e6)
            for point in points
            if role in point.peaks
        ]
        for role in _roles(points)
    }


def _roles(points: list[Point]) -> list[str]:
    """The roles that were seen, the sum last."""
    seen = dict.fromkeys(role for point in points for role in point.peaks)
    return [role for role in seen if role != TOGETHER] + [TOGETHER] * (TOGETHER in seen)


def _of(points: list[Point], series: str) -> list[Point]:
    """The points of a series that have figures."""
    return [point for point in points if point.series == series and point.seconds]


def _row(cells: list[str]) -> str:
    return f"| {' | '.join(cells)} |"

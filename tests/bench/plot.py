"""Two drawings as SVG, written by hand: ratios against their goals, and growth."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from html import escape
from typing import Any

from tests.bench.summary import Verdict
from tests.bench.tools import TITLES

_MET, _MISSED, _GREY, _INK = "#2f7d6b", "#c4572e", "#8a8f98", "#22262b"
#: One colour per line of a panel, apart also for those who see no red.
_COLOURS = ("#1f6fb2", "#c4572e", "#2f7d6b", "#8a5fb0", "#b08a1f", "#5b6470")
_LABELS, _SCALE, _ROW = 250, 330, 26
_MOST = 2.0
_FONT = 'font-family="system-ui, sans-serif"'


def bars(verdicts: list[Verdict], title: str, subtitle: str) -> str:
    """One bar per goal: Ketter's time / the peer's, with a mark where the goal is."""
    height = 84 + _ROW * len(verdicts) + 34
    parts = [_text(16, 26, title, 15, weight=600), _text(16, 44, subtitle, 10, _GREY)]
    bottom = 68 + _ROW * len(verdicts)
    for tick in (0.0, 0.5, 1.0, 1.5, 2.0):
        x = _x(tick)
        parts.append(_line(x, 62, x, bottom, _GREY if tick == 1 else "#e3e5e8"))
        parts.append(_text(x, bottom + 14, f"{tick:g}", 10, _GREY, "middle"))
    under = "Ketter's time / the peer's: less is faster. The dark mark is the goal; bars end at 2."
    parts.append(_text(_x(0), bottom + 32, under, 10, _GREY))
    for number, verdict in enumerate(verdicts):
        parts += _bar(68 + _ROW * number, verdict)
    return _svg(760, height, title, parts)


def _bar(top: float, verdict: Verdict) -> list[str]:
    several = len(verdict.goal.peers) > 1
    peers = "best of " + ", ".join(verdict.goal.peers) if several else TITLES[verdict.goal.peers[0]]
    middle = top + 14
    parts = [_text(_LABELS - 8, middle, f"{verdict.case} / {peers}", 11, anchor="end")]
    if verdict.ratio is None:
        return [*parts, _text(_x(0) + 6, middle, f"not measured: {verdict.note}", 10, _GREY)]
    colour = {True: _MET, False: _MISSED, None: _GREY}[verdict.met]
    start, end = _x(0), _x(min(verdict.ratio.value, _MOST))
    parts.append(
        f'<rect x="{start:.1f}" y="{top + 3}" width="{end - start:.1f}" height="15" '
        f'fill="{colour}"/>'
    )
    goal = _x(min(verdict.goal.limit, _MOST))
    parts.append(_line(goal, top, goal, top + 21, _INK, 2.5))
    word = {True: "met", False: "missed", None: "open"}[verdict.met]
    told = f"{verdict.ratio} (goal {verdict.goal.limit:g}: {word})"
    return [*parts, _text(_x(_MOST) + 12, middle, told, 11, colour)]


def _x(ratio: float) -> float:
    return _LABELS + ratio / _MOST * _SCALE


@dataclass
class Panel:
    """One diagram: lines over a logarithmic axis, from zero up; `limit` is a dashed line."""

    title: str
    ticks: dict[float, str]
    lines: dict[str, list[tuple[float, float]]]
    limit: float | None = None


def panels(shown: Sequence[Panel], title: str, subtitle: str) -> str:
    """The panels below each other."""
    parts = [_text(16, 26, title, 15, weight=600), _text(16, 44, subtitle, 10, _GREY)]
    top = 70.0
    for panel in shown:
        parts += _panel(panel, top)
        top += 230
    return _svg(760, top, title, parts)


def _panel(panel: Panel, top: float) -> list[str]:
    left, right, bottom = 70.0, 540.0, top + 170
    values = [y for line in panel.lines.values() for _, y in line] + [panel.limit or 0.0]
    most = _round_up(max(values, default=1.0) or 1.0)
    first, last = min(panel.ticks), max(panel.ticks)
    span = math.log(last / first) or 1.0

    def at(x: float, y: float) -> tuple[float, float]:
        return left + math.log(x / first) / span * (right - left), bottom - y / most * 150

    parts = [_text(16, top, panel.title, 12, weight=600)]
    for step in range(5):
        y = at(first, most * step / 4)[1]
        parts.append(_line(left, y, right, y, "#e3e5e8"))
        parts.append(_text(left - 6, y + 4, f"{most * step / 4:g}", 10, _GREY, "end"))
    for value, name in panel.ticks.items():
        parts.append(_text(at(value, 0)[0], bottom + 16, name, 10, _GREY, "middle"))
    if panel.limit:
        y = at(first, panel.limit)[1]
        parts.append(_line(left, y, right, y, _INK, 1.2, dashed=True))
        parts.append(_line(right + 8, top + 32, right + 24, top + 32, _INK, 1.2, dashed=True))
        parts.append(_text(right + 30, top + 36, f"wanted: at most {panel.limit:g}", 11))
    return parts + _curves(panel, at, right, top)


def _curves(
    panel: Panel, at: Callable[[float, float], tuple[float, float]], right: float, top: float
) -> list[str]:
    parts = []
    for number, (name, points) in enumerate(panel.lines.items()):
        colour = _COLOURS[number % len(_COLOURS)]
        placed = [at(x, y) for x, y in sorted(points)]
        path = " ".join(f"{x:.1f},{y:.1f}" for x, y in placed)
        parts.append(f'<polyline points="{path}" fill="none" stroke="{colour}" stroke-width="2"/>')
        parts += [f'<circle cx="{x:.1f}" cy="{y:.1f}" r="3.2" fill="{colour}"/>' for x, y in placed]
        y = top + 52 + 16 * number
        parts.append(_line(right + 8, y - 4, right + 24, y - 4, colour, 2.5))
        parts.append(_text(right + 30, y, name, 11))
    return parts


def _round_up(value: float) -> float:
    """The next round number that four steps divide well."""
    power = 10.0 ** math.floor(math.log10(value))
    return next(
        power * step for step in (1, 1.2, 1.6, 2, 2.4, 3.2, 4, 6, 8, 10) if power * step >= value
    )


def _text(
    x: float,
    y: float,
    text: str,
    size: int,
    colour: str = _INK,
    anchor: str = "start",
    weight: int = 400,
) -> str:
    return (
        f'<text x="{x:.1f}" y="{y:.1f}" font-size="{size}" fill="{colour}" '
        f'text-anchor="{anchor}" font-weight="{weight}">{escape(text)}</text>'
    )


def _line(
    x1: float,
    y1: float,
    x2: float,
    y2: float,
    colour: str,
    width: float = 1.0,
    dashed: bool = False,
) -> str:
    dashes = ' stroke-dasharray="5 4"' if dashed else ""
    return (
        f'<line x1="{x1:.1f}" y1="{y1:.1f}" x2="{x2:.1f}" y2="{y2:.1f}" '
        f'stroke="{colour}" stroke-width="{width:g}"{dashes}/>'
    )


def _svg(width: float, height: float, title: str, parts: list[str]) -> str:
    head = (
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width:g} {height:g}" '
        f'width="{width:g}" height="{height:g}" role="img" {_FONT}>'
    )
    back = f'<rect width="{width:g}" height="{height:g}" fill="#fff"/>'
    return "\n".join([head, f"<title>{escape(title)}</title>", back, *parts, "</svg>", ""])


def machine_line(machine: dict[str, Any]) -> str:
    """What a drawing says of where it comes from."""
    return (
        f"{machine['cores']} cores ({machine['cpu']}), {machine['file_system']}, "
        f"Python {machine['python']}, {machine['date'][:10]}"
    )

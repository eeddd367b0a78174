"""What a check is and what it finds.

The sentences are plain English, not translated: a report is read by whoever
is called to help, and compared with others from other installations.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any


class Verdict(StrEnum):
    """How good a finding is, from best to worst."""

    PASS = "pass"  # noqa: S105 - a verdict, not a password
    WARN = "warn"
    FAIL = "fail"

    @property
    def exit_code(self) -> int:
        """The exit status of `manage.py dku` for this verdict: 0, 1 or 2."""
        return list(Verdict).index(self)


def worst(verdicts: Iterable[Verdict]) -> Verdict:
    """The worst of some verdicts; of none, a pass."""
    return max(verdicts, key=lambda verdict: verdict.exit_code, default=Verdict.PASS)


@dataclass(frozen=True)
class Finding:
    """What one check saw.

    `value` is what was measured, in a few words; `sentence` says what it
    means; `remedy` what to do about it; `details` holds a line for each part
    that was looked at (a worker, a folder, a portal); `measured` holds the
    bare numbers for the JSON report. `name` and `seconds` are set by the one
    who runs the check.
    """

    verdict: Verdict
    value: str
    sentence: str
    remedy: str = ""
    details: tuple[str, ...] = ()
    measured: dict[str, Any] = field(default_factory=dict)
    name: str = ""
    seconds: float = 0.0


@dataclass(frozen=True)
class Check:
    """A named measurement; it is not tried when one of those it needs has failed."""

    name: str
    probe: Callable[[], Finding]
    needs: tuple[str, ...] = ()


def first_line(error: BaseException) -> str:
    """An error's first line, or its kind where it has no words."""
    lines = str(error).strip().splitlines()
    return lines[0].strip() if lines else type(error).__name__

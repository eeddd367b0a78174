"""A check and its finding.

The sentences are plain English, not translated: people who help read the
reports, and compare them with reports of other installations.
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
    """The worst of some verdicts; PASS if there are none."""
    return max(verdicts, key=lambda verdict: verdict.exit_code, default=Verdict.PASS)


@dataclass(frozen=True)
class Finding:
    """The result of one check.

    `value` is the measurement, in a few words; `sentence` says what it means;
    `remedy` what to do about it; `details` holds a line for each part (a
    worker, a folder, a portal); `measured` holds the bare numbers for the JSON
    report. `dku.diagnosis.diagnose` sets `name` and `seconds`.
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
    """A named measurement; `diagnose` skips it if a check that it needs has failed."""

    name: str
    probe: Callable[[], Finding]
    needs: tuple[str, ...] = ()


def first_line(error: BaseException) -> str:
    """An error's first line, or its class if it has no text."""
    lines = str(error).strip().splitlines()
    return lines[0].strip() if lines else type(error).__name__

"""Whether one tree is slower than another, from one ratio a round. Pure: it measures nothing."""

from __future__ import annotations

import math
import statistics
from dataclasses import dataclass
from enum import StrEnum

#: How often the interval of a figure holds the truth, at least.
CONFIDENCE = 0.95


class Verdict(StrEnum):
    """What became of a case."""

    PASSED = "no slower"
    SLOWER = "slower"
    UNMEASURED = "not measured"
    FAILED = "failed"  # A run of this checkout did not do what it should have.


@dataclass(frozen=True)
class Rules:
    """When a case is slower, when it is measured, and how long it is tried."""

    limit: float = 1.03
    spread: float = 0.03
    first: int = 7
    most: int = 21


@dataclass(frozen=True)
class Figure:
    """What this checkout takes / what the base takes: the median of the rounds' ratios."""

    ratios: tuple[float, ...]

    @property
    def value(self) -> float:
        """The figure that is compared with the limit."""
        return statistics.median(self.ratios)

    @property
    def low(self) -> float:
        """The lower end of the interval in which the true median is."""
        return sorted(self.ratios)[set_aside(len(self.ratios))]

    @property
    def high(self) -> float:
        """The upper end of that interval."""
        return sorted(self.ratios)[-1 - set_aside(len(self.ratios))]

    @property
    def spread(self) -> float:
        """How uncertain the figure is: half the interval's width, as a part of the figure."""
        return (self.high - self.low) / 2 / self.value

    def is_wide(self, rules: Rules) -> bool:
        """Whether it is too uncertain to say anything by."""
        return self.spread > rules.spread

    def straddles(self, rules: Rules) -> bool:
        """Whether the truth may as well be on the other side of the limit."""
        return self.low <= rules.limit < self.high

    def is_slower(self, rules: Rules) -> bool:
        """Whether it is above the limit with all of its interval."""
        return self.low > rules.limit

    def __str__(self) -> str:
        return f"{(self.value - 1) * 100:+.1f} % ± {self.spread * 100:.1f} %"


def set_aside(rounds: int) -> int:
    """How many of the lowest ratios, and of the highest, lie outside the interval.

    With k set aside at either end, the true median is outside as often as n
    throws of a coin give at most k heads, or at most k tails: that assumes
    nothing about how the ratios are spread.
    """
    outside, least = 0.0, 0
    for lowest in range((rounds - 1) // 2):
        outside += 2 * math.comb(rounds, lowest) / 2**rounds
        if outside > 1 - CONFIDENCE:
            break
        least = lowest
    return least


def wants_more(wall: Figure, processor: Figure, rules: Rules) -> bool:
    """Whether a case needs one more round."""
    rounds = len(wall.ratios)
    if rounds < rules.first:
        return True
    if rounds >= rules.most:
        return False
    suspect = processor.value > rules.limit and processor.straddles(rules)
    return wall.is_wide(rules) or wall.straddles(rules) or suspect


def judge(wall: Figure, processor: Figure, rules: Rules) -> tuple[Verdict, str]:
    """The verdict once there are no more rounds, and why.

    Only wall time lets a case pass: that is what is waited for, and a sleep or a
    round trip more takes no processor. Processor time, the steadier of the two,
    can only add that a case is slower.
    """
    if wall.is_slower(rules):
        return Verdict.SLOWER, f"wall time {wall}"
    if processor.is_slower(rules):
        return Verdict.SLOWER, f"processor time {processor}"
    between = f"the wall time's ratio lies between {wall.low:.3f} and {wall.high:.3f}"
    if wall.is_wide(rules):
        why = f"after {len(wall.ratios)} rounds {between}, a spread of {wall.spread:.1%}"
        return Verdict.UNMEASURED, why
    if wall.value > rules.limit:
        why = f"after {len(wall.ratios)} rounds {between}, so on either side of {rules.limit:g}"
        return Verdict.UNMEASURED, why
    return Verdict.PASSED, ""

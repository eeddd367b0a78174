"""When a case is slower, when it passes, and when it was not measured: with made-up figures."""

from __future__ import annotations

import random
import re
from itertools import count

import pytest

from tests.bench.paired import Figure, Rules, Verdict, judge, set_aside, wants_more

RULES = Rules()


def rounds_of(ratio: float, noise: float, seed: int = 1) -> list[float]:
    """As many ratios as there can be rounds, half of them up to `noise` above, half below."""
    dice = random.Random(seed)
    signs = [1, -1] * (RULES.most // 2 + 1)
    return [ratio * (1 + sign * dice.uniform(noise / 2, noise)) for sign in signs][: RULES.most]


def measured(wall: list[float], processor: list[float]) -> tuple[int, Verdict, str]:
    """Take rounds as long as more are wanted; how many that were, the verdict, and why."""
    for rounds in count(1):
        figures = Figure(tuple(wall[:rounds])), Figure(tuple(processor[:rounds]))
        if not wants_more(*figures, RULES):
            return rounds, *judge(*figures, RULES)
    raise AssertionError


EQUAL = rounds_of(1.0, 0.004)


#: The ratio and the noise of the wall time, then of the processor time -> after how many rounds
#: (None: however many) there is which verdict, and how its reason begins.
VERDICTS = {
    "equal": ((1.0, 0.004), (1.0, 0.004), 7, Verdict.PASSED, r"\Z"),
    "faster": ((0.8, 0.01), (1.0, 0.004), 7, Verdict.PASSED, ""),
    "5 % more wall time": (
        *((1.05, 0.004), (1.0, 0.004), 7, Verdict.SLOWER),
        r"wall time \+5\.",
    ),
    "5 % more processor time": (
        *((1.0, 0.004), (1.05, 0.004), 7, Verdict.SLOWER),
        r"processor time \+5\.",
    ),
    "wide": (
        *((1.0, 0.2), (1.0, 0.004), 21, Verdict.UNMEASURED),
        r"after 21 rounds the wall time's ratio lies between 0\.",
    ),
    "wide, with less processor time": ((0.99, 0.2), (0.5, 0.001), None, Verdict.UNMEASURED, ""),
    "wide in processor time only": ((1.0, 0.004), (1.02, 0.2), None, Verdict.PASSED, ""),
    "wide and faster": ((0.7, 0.2), (1.0, 0.004), None, Verdict.UNMEASURED, ""),
    "wide and slower": ((1.6, 0.2), (1.0, 0.004), 21, Verdict.SLOWER, ""),
}


@pytest.mark.parametrize(
    ("wall", "processor", "rounds", "verdict", "why"), VERDICTS.values(), ids=VERDICTS
)
def test_the_verdict_on_a_case_follows_from_its_two_ratios_and_their_spreads(
    wall, processor, rounds, verdict, why
):
    taken, found, reason = measured(rounds_of(*wall), rounds_of(*processor))
    assert found is verdict
    assert rounds in {None, taken}
    assert re.match(why, reason)


def test_a_case_gets_no_more_rounds_once_its_spread_is_narrow():
    noisy_at_first = [1.3, 0.7, 1.2, 0.8, *EQUAL]
    rounds, verdict, _ = measured(noisy_at_first, EQUAL)
    assert 7 < rounds < 21
    assert verdict is Verdict.PASSED


@pytest.mark.parametrize("ratio", [1.029, 1.031])
def test_a_case_whose_wall_time_interval_spans_the_limit_gets_more_rounds(ratio):
    rounds, verdict, why = measured(rounds_of(ratio, 0.02), EQUAL)
    assert rounds == 21
    if verdict is Verdict.PASSED:
        assert ratio < RULES.limit
    else:
        assert verdict is Verdict.UNMEASURED
        assert why.endswith(", so on either side of 1.03")


def test_a_case_whose_processor_time_interval_spans_the_limit_gets_more_rounds():
    assert measured(EQUAL, rounds_of(1.031, 0.02))[0] > 7


@pytest.mark.parametrize(
    ("rounds", "outside"), [(1, 0), (3, 0), (7, 0), (8, 0), (9, 1), (12, 2), (15, 3), (21, 5)]
)
def test_the_interval_contains_the_true_ratio_nineteen_times_out_of_twenty(rounds, outside):
    assert set_aside(rounds) == outside
    if rounds < 7:
        return
    dice = random.Random(rounds)
    held = 0
    for _ in range(2000):
        figure = Figure(tuple(dice.lognormvariate(0, 0.05) for _ in range(rounds)))
        held += figure.low <= 1 <= figure.high
    assert held / 2000 > 0.93


def test_a_single_outlier_of_nine_rounds_moves_neither_the_figure_nor_its_spread():
    calm = (0.99, 0.99, 0.99, 1.0, 1.0, 1.0, 1.01, 1.01)
    for wild in (0.1, 9.0):
        figure = Figure((*calm, wild))
        assert figure.value == 1.0
        assert figure.spread == pytest.approx(0.01)


def test_seven_rounds_are_enough_only_without_an_outlier():
    assert measured([0.99, 1.0, 1.01, 1.0, 0.99, 1.01, 1.0], EQUAL)[0] == 7
    assert measured([0.99, 1.0, 9.01, 1.0, 0.99, 1.01, 1.0, 1.0, 1.0], EQUAL)[:2] == (
        9,
        Verdict.PASSED,
    )

"""How many devices are asked: held against exact sums of binomial probabilities."""

import math
from fractions import Fraction

import pytest

from shoal.rounds.record import DEADLINE, EXPIRED, RoundRecord
from shoal.rounds.selection import places, report_rate


def reached(goal: int, asked: int, rate: Fraction) -> Fraction:
    """P(Binomial(asked, rate) >= goal), exactly."""
    return 1 - sum(math.comb(asked, k) * rate**k * (1 - rate) ** (asked - k) for k in range(goal))


@pytest.mark.parametrize("goal", [1, 2, 7, 30])
@pytest.mark.parametrize("rate", [Fraction(1, 10), Fraction(1, 2), Fraction(9, 10)])
@pytest.mark.parametrize("confidence", [0.6, 0.95, 0.999])
def test_the_number_asked_is_the_smallest_that_reaches_the_goal(goal, rate, confidence):
    asked = places(goal, float(rate), confidence)
    assert reached(goal, asked, rate) >= confidence
    assert asked == goal or reached(goal, asked - 1, rate) < confidence


def test_a_thousand_of_devices_that_drop_out_at_eight_percent():
    assert places(1000, 0.92, 0.95) == 1103


def test_a_goal_whose_first_term_is_below_the_smallest_float():
    asked = places(20_000, 0.9, 0.95)
    mean, deviation = asked * 0.9, math.sqrt(asked * 0.09)
    assert (mean - 20_000) / deviation == pytest.approx(1.645, abs=0.02)


def test_without_confidence_or_without_drop_out_the_goal_is_asked():
    assert places(5, 0.2, 0.0) == 5
    assert places(5, 1.0, 0.95) == 5


def record(reported: int, dropped: int, **fields) -> RoundRecord:
    return RoundRecord(1, 1, 9, 0.0, reported=reported, dropped={EXPIRED: dropped} if dropped else {}, **fields)


def test_the_rate_is_measured_from_a_prior_on():
    assert report_rate([]) == 0.9
    assert report_rate([record(80, 20)]) == pytest.approx(89 / 110)
    assert report_rate([record(80, 10, refused={"refused_update": 10})]) == pytest.approx(89 / 110)
    assert report_rate([record(80, 20, carried=10)]) == pytest.approx(79 / 100)


def test_reasons_are_bounded_in_number_and_length():
    made = RoundRecord(1, 1, 9, 0.0)
    for number in range(40):
        made.drop(f"released: {number} " + "x" * 500)
    made.drop(EXPIRED)
    made.drop(DEADLINE, 3)
    assert len(made.dropped) == 19
    assert max(map(len, made.dropped)) <= 100
    assert sum(made.dropped.values()) == 44

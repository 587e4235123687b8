"""How many devices to ask, so that enough of them report.

Of n devices that take part, each reports with probability p; the smallest n with P(Binomial(n, p) >= goal) >= c is
asked. p is measured: reports over all parts that were settled in the task's former rounds, starting from a prior.
Devices that were still at work when a round closed count neither way: nobody knows what they would have done.
"""

import math
from collections.abc import Iterable

from shoal.rounds.record import RoundRecord

PRIOR_REPORTS = 9.0
"""Reports that are believed to have been seen before the first round ..."""

PRIOR_PARTS = 10.0
"""... of this many parts: one of ten devices drops out, until measured."""

MEASURED_ROUNDS = 20
"""How many of the latest attempts are measured: a population changes."""


def report_rate(records: Iterable[RoundRecord]) -> float:
    """Return the measured probability that a device which takes part reports, in (0, 1)."""
    reports, parts = PRIOR_REPORTS, PRIOR_PARTS
    for record in records:
        fresh = record.reported - record.carried
        reports += fresh
        parts += fresh + sum(record.dropped.values()) + sum(record.refused.values())
    return reports / parts


def places(goal: int, rate: float, confidence: float) -> int:
    """Return the smallest n with P(Binomial(n, rate) >= goal) >= confidence; the goal itself for confidence 0.

    The goal-th report comes with device m with probability C(m-1, goal-1) rate^goal (1-rate)^(m-goal): these are
    summed, in logarithms since the first is far below the smallest float for a goal of thousands.
    """
    if confidence == 0 or rate >= 1:
        return goal
    asked, reached = goal, 0.0
    term = goal * math.log(rate)
    while (reached := reached + math.exp(term)) < confidence:
        term += math.log1p(-rate) + math.log(asked / (asked - goal + 1))
        asked += 1
    return asked

"""The laws hold for our aggregators, and each of them fails for an aggregator that breaks it and nothing else."""

import pytest

from shoal.algorithms import statistics
from shoal.algorithms.mean import ExactMean
from shoal.algorithms.robust import Median
from shoal.algorithms.statistics import Moments
from shoal.core.task import RoundPlan, TaskSpec
from shoal.testing.laws import EVERY_LAW, aggregator_laws

STATISTICS = TaskSpec("columns", statistics.arrays(3), 2, RoundPlan(goal=1), kind="statistics")


def test_the_mean_keeps_every_law():
    aggregator_laws(ExactMean())


def test_the_median_keeps_every_law_but_the_mean():
    aggregator_laws(Median(), laws=EVERY_LAW - {"mean"})
    with pytest.raises(AssertionError, match="not the weighted mean"):
        aggregator_laws(Median(), laws={"mean"})


def test_the_moments_keep_every_law_but_the_mean_and_the_bounds():
    aggregator_laws(Moments(), STATISTICS, laws=EVERY_LAW - {"mean", "bounds", "count"})

"""The laws hold for our aggregators, and each of them fails for an aggregator that breaks it."""

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import Phase, find, settings

from shoal.algorithms import statistics
from shoal.algorithms.fednova import Normalised, NormalisedMean
from shoal.algorithms.mean import ExactMean
from shoal.algorithms.qfedavg import Fair, FairMean
from shoal.algorithms.robust import Median
from shoal.algorithms.statistics import Moments
from shoal.core.check import check_update
from shoal.core.errors import RefusedUpdate
from shoal.core.roles import Role
from shoal.core.task import ArraySpec, Bounds, RoundPlan, TaskSpec
from shoal.testing.aggregators import SPEC
from shoal.testing.laws import EVERY_LAW, aggregator_laws, updates

STATISTICS = TaskSpec("columns", statistics.arrays(3), 2, RoundPlan(goal=1), kind="statistics")


COUNTED = [(NormalisedMean(), Normalised()), (FairMean(), Fair())]


@pytest.mark.slow
@pytest.mark.parametrize(("aggregator", "rule"), COUNTED, ids=lambda each: each.name)
def test_means_of_updates_with_a_number_beside_them_keep_the_laws(aggregator, rule):
    task = replace(SPEC, extra=rule.extra_trees(SPEC.arrays))
    aggregator_laws(aggregator, task, laws=EVERY_LAW - {"mean", "result", "roles"})


def test_the_mean_keeps_every_law():
    aggregator_laws(ExactMean())


@pytest.mark.slow
def test_the_mean_keeps_every_law_for_another_task():
    arrays = {"w": ArraySpec((5,), "float32"), "n": ArraySpec((), "int8", Role.COUNTER)}
    aggregator_laws(ExactMean(), TaskSpec("t", arrays, 1, RoundPlan(goal=8), bounds=Bounds(0.3, 5.5, 100)))


@pytest.mark.slow
def test_the_median_keeps_every_law_but_the_mean():
    aggregator_laws(Median(), laws=EVERY_LAW - {"mean"})
    with pytest.raises(AssertionError, match="not the weighted mean"):
        aggregator_laws(Median(), laws={"mean"})


@pytest.mark.slow
def test_moments_have_neither_mean_nor_bounds():
    aggregator_laws(Moments(), STATISTICS, laws=EVERY_LAW - {"mean", "bounds", "count"})
    with pytest.raises(AssertionError, match="was not refused"):
        aggregator_laws(Moments(), STATISTICS, laws={"bounds"})


@pytest.mark.parametrize("spec", [SPEC, STATISTICS])
def test_updates_are_what_a_task_accepts_and_reach_its_bounds(spec):
    def at_the_bound(update):
        check_update(spec, update)
        return any(np.abs(array).max(initial=0) == spec.bounds.max_abs for array in update.delta.values())

    find(updates(spec), at_the_bound, settings=settings(phases=[Phase.generate], database=None))


class LastWins(ExactMean):
    """Forgets the left side of a merge."""

    def merge(self, left, right):
        return right


class Single(ExactMean):
    """Returns float32."""

    def finish(self, state):
        return {t: {n: a.astype(np.float32) for n, a in tree.items()} for t, tree in super().finish(state).items()}


class Unweighted(ExactMean):
    """Counts every device once."""

    def add(self, state, update):
        check_update(state.spec, update)
        return super().add(state, replace(update, weight=1))


class Counting(ExactMean):
    """Moves counters one further than any device did."""

    def finish(self, state):
        result = super().finish(state)
        return {**result, "delta": {**result["delta"], "steps": result["delta"]["steps"] + 1}}


class Silent(ExactMean):
    """Drops what it should refuse."""

    def add(self, state, update):
        try:
            return super().add(state, update)
        except RefusedUpdate:
            return state


class Hasty(ExactMean):
    """Counts before it checks."""

    def add(self, state, update):
        state.weight += update.weight
        check_update(state.spec, update)
        state.weight -= update.weight
        return super().add(state, update)


class Unbounded(ExactMean):
    """Merges sums of any number of updates."""

    def merge(self, left, right):
        right.updates, updates = 0, right.updates
        merged = super().merge(left, right)
        merged.updates += updates
        return merged


BROKEN = [
    ("order", LastWins(), "order or grouping|every update was lost"),
    ("result", Single(), "not an array float64"),
    ("mean", Unweighted(), "not the weighted mean"),
    ("roles", Unweighted(), "not the weighted mean"),
    ("roles", Counting(), "not the maximum"),
    *((law, Silent(), "was not refused") for law in ("layout", "finite", "bounds", "weight")),
    ("layout", Hasty(), "counted in part"),
    ("count", Silent(), "adding may exceed"),
    ("count", Unbounded(), "merging may exceed"),
]


@pytest.mark.slow
@pytest.mark.parametrize(("law", "broken", "says"), BROKEN, ids=[f"{law}-{type(b).__name__}" for law, b, _ in BROKEN])
def test_a_broken_aggregator_is_found(law, broken, says):
    with pytest.raises(AssertionError, match=says):
        aggregator_laws(broken, laws={law})

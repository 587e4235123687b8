"""Histograms, quantiles and evaluations over several owners, against numpy on the pooled rows."""

from collections.abc import Callable

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from shoal.algorithms import evaluation, histogram, quantiles
from shoal.algorithms.optimizer import SGD
from shoal.algorithms.statistics import Moments
from shoal.algorithms.strategy import advance
from shoal.core.errors import Abandoned, NoRows, TaskError
from shoal.core.task import ArraySpec, Kind, RoundPlan, TaskSpec
from shoal.core.tree import Tree, digest
from shoal.core.types import Update

DRAW = np.random.default_rng(8)
TABLES = [DRAW.normal(size=(rows, 3)) * [1.0, 1e6, 0.0] + [0.0, -3e6, 7.0] for rows in (1, 40, 300)]
TABLES[1][:, 0] = np.rint(TABLES[1][:, 0])
POOLED = np.concatenate(TABLES)
LOW, HIGH = POOLED.min(axis=0), POOLED.max(axis=0)
MOMENTS = Moments()


def spec(kind: Kind, arrays: dict[str, ArraySpec], rounds: int = 1) -> TaskSpec:
    return TaskSpec("s", arrays, rounds, RoundPlan(goal=1), kind=kind)


def combined(task: TaskSpec, releases: list[Tree]) -> Tree:
    state = MOMENTS.init(task)
    for owner, released in enumerate(releases):
        state = MOMENTS.add(state, Update(f"a{owner}", released, 1))
    return MOMENTS.finish(state)["delta"]


def after(task: TaskSpec, version: Tree, measure: Callable[[np.ndarray, Tree, int], Tree]) -> Tree:
    """The version that a task's rounds end with over all owners."""
    for number in range(1, task.rounds + 1):
        delta = combined(task, [measure(table, version, number) for table in TABLES])
        version, _ = advance(task.arrays, version, delta, SGD(), {})
    return version


@pytest.mark.parametrize("bins", [1, 7, 50])
def test_a_histogram_equals_numpys_on_the_pooled_rows(bins):
    edges = histogram.even(LOW, HIGH, bins)
    edges[2] = np.linspace(6, 7, bins + 1)
    found = after(
        spec("histogram", histogram.arrays(3, bins)),
        histogram.begin(edges),
        lambda table, version, _: histogram.measure(table, version),
    )
    for column in range(3):
        assert found["counts"][column].tolist() == np.histogram(POOLED[:, column], edges[column])[0].tolist()
    assert found["counts"].sum() == POOLED.size
    np.testing.assert_array_equal(found["edges"], edges)


def test_values_outside_the_edges_are_in_no_bin():
    released = histogram.measure(np.array([[-1.0], [0.0], [1.0], [2.0], [3.0]]), histogram.begin(np.array([[0, 1, 2]])))
    assert released["counts"].tolist() == [[1.0, 2.0]]


@pytest.mark.parametrize("edges", [[[2.0, 1.0]], [[0.0, np.nan]], [[0.0]], [0.0, 1.0]])
def test_edges_that_are_none(edges):
    with pytest.raises(TaskError, match="edges"):
        histogram.begin(np.array(edges))


WANTED = (0.0, 0.1, 0.5, 0.75, 0.999, 1.0)


@pytest.mark.parametrize("tolerance", [1.0, 1 / 32, 1e-3, 1e-9])
def test_quantiles_are_numpys_to_the_stated_share_of_the_range(tolerance):
    rounds = quantiles.passes(tolerance)
    version = quantiles.begin(LOW, HIGH, float(len(POOLED)), WANTED, rounds)
    found = after(spec("quantiles", quantiles.arrays(3, 2 * len(WANTED), rounds), rounds), version, quantiles.measure)
    measured = quantiles.result(found, float(len(POOLED)), WANTED)
    expected = np.quantile(POOLED, WANTED, axis=0).T
    bound = (HIGH - LOW)[:, None] * tolerance * (1 + 1e-6)
    assert (np.abs(measured - expected) <= bound).all()
    assert measured[2].tolist() == [7.0] * len(WANTED)


def test_passes_follow_from_the_tolerance():
    assert [quantiles.passes(share) for share in (1.0, 1 / 32, 1 / 33, 32.0**-3)] == [1, 1, 2, 3]
    for wrong in (0.0, 2.0, float("nan")):
        with pytest.raises(TaskError, match="tolerance"):
            quantiles.passes(wrong)
    with pytest.raises(TaskError, match="from 0 to 1"):
        quantiles.begin(LOW, HIGH, 9.0, (0.5, 1.5), 1)


def test_no_rows_say_nothing():
    none = np.zeros((0, 3))
    with pytest.raises(NoRows):
        histogram.measure(none, histogram.begin(histogram.even(LOW, HIGH, 2)))
    with pytest.raises(NoRows):
        quantiles.measure(none, quantiles.begin(LOW, HIGH, 9.0, (0.5,), 1), 1)


def test_an_evaluation_is_the_mean_over_all_rows():
    losses = [table[:, 0] ** 2 for table in TABLES]
    releases = [evaluation.measure([float(loss.mean()), 1.0], len(loss)) for loss in losses]
    found = evaluation.result(("loss", "one"), combined(spec("evaluation", evaluation.arrays(2)), releases), 3)
    np.testing.assert_allclose(found.metrics["loss"], np.concatenate(losses).mean(), rtol=1e-12)
    assert (found.metrics["one"], found.rows, found.owners) == (1.0, 341, 3)
    with pytest.raises(Abandoned, match="over 0 rows"):
        evaluation.result(("loss",), evaluation.nothing(1), 0)


@pytest.mark.slow
@given(st.permutations(range(6)), st.integers(0, 6), st.sampled_from(["evaluation", "histogram", "quantiles"]))
def test_order_and_grouping_of_owners_give_the_same_bits(order, cut, kind):
    draw = np.random.default_rng(6)
    tables = [draw.normal(size=(rows, 2)) * 10.0**rows for rows in (1, 2, 3, 5, 9, 4)]
    low, high = np.full(2, -1e9), np.full(2, 1e9)
    task, release = {
        "evaluation": (
            spec("evaluation", evaluation.arrays(2)),
            lambda table: evaluation.measure(table.mean(axis=0).tolist(), len(table)),
        ),
        "histogram": (
            spec("histogram", histogram.arrays(2, 4)),
            lambda table: histogram.measure(table, histogram.begin(histogram.even(low, high, 4))),
        ),
        "quantiles": (
            spec("quantiles", quantiles.arrays(2, 2, 1)),
            lambda table: quantiles.measure(table, quantiles.begin(low, high, 24.0, (0.5,), 1), 1),
        ),
    }[kind]
    updates = [Update(f"a{owner}", release(table), 1) for owner, table in enumerate(tables)]

    def total(some):
        state = MOMENTS.init(task)
        for update in some:
            state = MOMENTS.add(state, update)
        return state

    straight = digest(MOMENTS.finish(total(updates))["delta"])
    shuffled = [updates[place] for place in order]
    merged = MOMENTS.merge(total(shuffled[:cut]), total(shuffled[cut:]))
    assert digest(MOMENTS.finish(merged)["delta"]) == straight


def test_passes_over_other_rows_are_no_quantiles():
    version = quantiles.begin(LOW, HIGH, float(len(POOLED)), (0.5,), 1)
    some = combined(spec("quantiles", quantiles.arrays(3, 2, 1)), [quantiles.measure(TABLES[1], version, 1)])
    version, _ = advance(quantiles.arrays(3, 2, 1), version, some, SGD(), {})
    with pytest.raises(Abandoned, match=r"passes over \[40\] rows, ranks among 341"):
        quantiles.result(version, float(len(POOLED)), (0.5,))

"""The tasks that measure: a plan of rounds, and the version 0 that it starts from."""

from collections.abc import Sequence
from dataclasses import replace
from typing import TypeAlias

import numpy as np

from shoal.algorithms import evaluation, histogram, quantiles, statistics
from shoal.core.cohort import Cohort
from shoal.core.errors import TaskError
from shoal.core.serving import Canary
from shoal.core.subject import AGAINST, Subject
from shoal.core.task import ArraySpec, Bounds, Component, Kind, RoundPlan, TaskSpec
from shoal.core.tree import Tree, digest

Edges: TypeAlias = int | Sequence[float] | Sequence[Sequence[float]] | statistics.Floats
"""A number of bins between minimum and maximum, edges for all columns, or edges [columns, bins + 1]."""

Measure: TypeAlias = tuple[TaskSpec, Tree]
"""A task that is not training, and its version 0."""

LONGEST = 54
"""Letters of a name that leave room for what is measured."""


def moments(columns: Sequence[str], goal: int, name: str, deadline: float) -> Measure:
    """Return the task of counts, means, deviations and ranges."""
    count = len(columns)
    return _measure(
        "statistics",
        name,
        columns,
        (statistics.arrays(count), statistics.nothing(count)),
        statistics.PASSES,
        (goal, deadline),
    )


def histograms(found: statistics.ColumnStatistics, edges: Edges, goal: int, name: str, deadline: float) -> Measure:
    """Return the task of a histogram over columns whose ranges were found. Raises TaskError for edges that are none."""
    start = histogram.begin(_edges(found, edges))
    arrays = histogram.arrays(*start["counts"].shape)
    plan = (goal, deadline)
    return _measure("histogram", f"{name[:LONGEST]}-histogram", found.columns, (arrays, start), histogram.PASSES, plan)


def _edges(found: statistics.ColumnStatistics, edges: Edges) -> statistics.Floats:
    count = len(found.columns)
    if isinstance(edges, int):
        return histogram.even(found.minimum, found.maximum, edges)
    given = np.asarray(edges, np.float64)
    if given.ndim == 1:
        return np.tile(given, (count, 1))
    if len(given) != count:
        raise TaskError(f"edges for {len(given)} of {count} columns", "give edges for each column, or for all at once")
    return given


def quantile(
    found: statistics.ColumnStatistics, wanted: Sequence[float], tolerance: float, goal: int, name: str, deadline: float
) -> Measure:
    """Return the task of quantiles over columns whose ranges were found. Raises TaskError for what is no share."""
    rounds = quantiles.passes(tolerance)
    start = quantiles.begin(found.minimum, found.maximum, float(found.count[0]), wanted, rounds)
    arrays = quantiles.arrays(len(found.columns), len(start["ranks"]), rounds)
    plan = (goal, deadline)
    return _measure("quantiles", f"{name[:LONGEST]}-quantiles", found.columns, (arrays, start), rounds, plan)


def evaluated(subject: Subject, metrics: Sequence[str], goal: int, deadline: float) -> Measure:
    """Return the task that measures a version on the rows that owners hold out. Raises TaskError without a metric."""
    return _evaluation(f"{subject.name[:LONGEST]}-evaluation", subject, metrics, (goal, deadline))


def guard(subject: Subject, name: str, canary: Canary, cohort: Cohort) -> Measure:
    """Return the task that measures a candidate, and what it would replace, on the same rows of a cohort."""
    spec, start = _evaluation(name, subject, (canary.metric,), (canary.devices, canary.deadline))
    return replace(spec, cohort=cohort), start


def _evaluation(name: str, subject: Subject, metrics: Sequence[str], plan: tuple[int, float]) -> Measure:
    if not metrics or len(set(metrics)) != len(metrics):
        raise TaskError(f"an evaluation of the metrics {list(metrics)}", 'name each one once, such as "loss"')
    columns = (*metrics, *(f"{AGAINST}{metric}" for metric in metrics if subject.against))
    parts = (evaluation.arrays(len(columns)), evaluation.nothing(len(columns)))
    return _measure("evaluation", name, columns, parts, 1, plan, subject)


def _measure(
    kind: Kind,
    name: str,
    columns: Sequence[str],
    parts: tuple[dict[str, ArraySpec], Tree],
    rounds: int,
    plan: tuple[int, float],
    subject: Subject | None = None,
) -> Measure:
    goal, deadline = plan
    spec = TaskSpec(
        name=name,
        kind=kind,
        arrays=parts[0],
        rounds=rounds,
        plan=RoundPlan(goal, goal, deadline, attempts=1),
        aggregator=Component(statistics.Moments.name),
        bounds=replace(Bounds(), max_updates=max(goal, Bounds().max_updates)),
        columns=tuple(columns),
        initial=digest(parts[1]),
        subject=subject,
    )
    return spec, parts[1]

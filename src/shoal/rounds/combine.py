"""From accepted updates to a version: what is to be folded, and what devices measured and spent."""

import math
from collections.abc import Mapping, Sequence

from shoal.core.task import TaskSpec
from shoal.core.types import Costs, ModelVersion
from shoal.rounds.effects import Contribution, Fold
from shoal.rounds.events import Committed
from shoal.rounds.lease import Counted


def fold_of(spec: TaskSpec, number: int, attempt: int, base: ModelVersion, updates: Sequence[Counted]) -> Fold:
    """Return the order to combine `updates`: by assignment in synchronous rounds, else as they were accepted."""
    buffered = spec.plan.buffered
    mixes = buffered is not None and buffered.mixing == "model" and updates[0].version != base.digest
    return Fold(
        number,
        attempt,
        base,
        tuple(Contribution(update.assignment, update.digest, update.weight) for update in ordered(spec, updates)),
        share=sum(update.weight for update in updates) / sum(update.full for update in updates),
        start=updates[0].version if mixes else "",
    )


def ordered(spec: TaskSpec, updates: Sequence[Counted]) -> list[Counted]:
    """Return updates by assignment in synchronous rounds, whose order means nothing; else as they were accepted."""
    return sorted(updates, key=lambda update: update.assignment) if spec.plan.buffered is None else list(updates)


def version_of(event: Committed, parent: ModelVersion, updates: Sequence[Counted], now: float) -> ModelVersion:
    """Return the version that a commit made of `updates`."""
    return ModelVersion(
        number=event.round,
        digest=event.digest,
        parent=parent.digest,
        created=now,
        checkpoint=event.checkpoint,
        reports=len(updates),
        metrics=_weighted(updates),
        costs=sum((update.costs for update in updates), Costs()),
    )


def _weighted(updates: Sequence[Counted]) -> dict[str, float]:
    measured: dict[str, list[tuple[int, float]]] = {}
    for update in updates:
        for name, value in update.metrics.items():
            measured.setdefault(name, []).append((update.weight, value))
    return weighted_means(measured)


def weighted_means(measured: Mapping[str, Sequence[tuple[int, float]]]) -> dict[str, float]:
    """Return the mean of what devices measured, by name, each a list of (weight, value)."""
    # one device's NaN or infinity says nothing about the others
    finite = {name: [pair for pair in measured[name] if math.isfinite(pair[1])] for name in sorted(measured)}
    return {name: _mean(pairs) for name, pairs in finite.items() if pairs}


def _mean(measured: Sequence[tuple[int, float]]) -> float:
    # shares of the weight keep the sum from overflowing
    total = sum(weight for weight, _ in measured)
    return math.fsum(weight / total * value for weight, value in measured)

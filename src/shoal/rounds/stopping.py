"""When a task has learnt what it can: early stopping."""

import math
from collections.abc import Sequence

from shoal.core.plan import EarlyStop
from shoal.core.types import ModelVersion


def stopped(rule: EarlyStop, versions: Sequence[ModelVersion]) -> str:
    """Return why a task with these versions, oldest first, should end; "" when it should go on.

    A version without the metric is no improvement.
    """
    sign = 1.0 if rule.better == "lower" else -1.0
    best, at, since = math.inf, -1, 0
    for version in versions:
        value = sign * version.metrics.get(rule.metric, math.inf * sign)
        # the first value counts as it is: infinity less something is no mark to beat
        if value < (best - rule.min_improvement if best < math.inf else math.inf):
            best, at, since = value, version.number, 0
        else:
            since += 1
    if since < rule.patience:
        return ""
    if at < 0:
        return f"no report of {since} versions measured {rule.metric!r}"
    return (
        f"{rule.metric!r} has not improved by more than {rule.min_improvement:g} in {since} versions: "
        f"{sign * best:g} in version {at} was the best"
    )

"""How far a client's optimizer goes: what the steps of a round add up to where they are sums of gradients."""

import math

from shoal.core.errors import TaskError
from shoal.core.task import LocalPlan


def check_steps(plan: LocalPlan, paper: str, *, momentum: bool = False) -> None:
    """Raise TaskError, naming the paper, for another optimizer than SGD and, unless allowed, for momentum."""
    optimizer = plan.optimizer
    if optimizer.name != "sgd":
        raise TaskError(f"{paper} with the local optimizer {optimizer.name}", "use shoal.sgd(...): it counts steps")
    if optimizer.options.get("momentum") and not momentum:
        raise TaskError(f"{paper} with momentum {optimizer.options['momentum']}", "use shoal.sgd without momentum")


def steps_of(rows: int, plan: LocalPlan) -> int:
    """Return how many optimizer steps a client with so many rows takes."""
    return plan.epochs * math.ceil(rows / plan.batch_size)


def effective_steps(plan: LocalPlan, steps: int) -> float:
    """Return how far SGD by a plan goes in so many steps on gradients of one, in units of its learning rate."""
    options = plan.optimizer.options
    lr = float(options["lr"] or 0.0)
    momentum, dampening = float(options.get("momentum") or 0.0), float(options.get("dampening") or 0.0)
    position = buffer = 0.0
    for step in range(steps):
        gradient = 1.0 - plan.proximal * lr * position
        buffer = momentum * buffer + (gradient if step == 0 else (1.0 - dampening) * gradient)
        position += plan.per_step.at(step) * (gradient + momentum * buffer if options.get("nesterov") else buffer)
    return position

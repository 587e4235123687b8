"""The golden step: one training step on a made-up batch, with its result, that proves an owner's code.

Names, shapes and dtypes cannot tell ReLU from Tanh; one step does. The batch is drawn from a seed, so no row of the
researcher leaves; only the kind of numbers is taken from the example (sign, unit range, which integers occur), so
that the loss is defined on it.
"""

from collections.abc import Iterable, Iterator, Mapping

import numpy as np
from torch import nn

from shoal.core.errors import CodeMismatch
from shoal.core.roles import Role
from shoal.core.task import ArraySpec, OptimizerSpec
from shoal.core.tree import Array, Tree
from shoal.train.arrays import changes, choose_trained, names_with, read_arrays, tensor
from shoal.train.objective import Objective
from shoal.train.optimizer import Stepper
from shoal.train.randomness import seeded

SEED = 20260101
"""The seed of dropout and the like in the golden step."""

RELATIVE = 1e-4
"""How far an element of a delta may be off, as a share of the array's largest."""

ABSOLUTE = 1e-7
"""The same in absolute terms, for arrays that hardly move; the sums of float32 differ between processors."""


BLOCK = 1 << 16
"""Elements that are compared at once, in float64."""


def synthetic_batch(example: Mapping[str, Array], seed: int) -> dict[str, Array]:
    """Draw a batch with the example's shapes and dtypes."""
    rng = np.random.Generator(np.random.Philox(seed))
    return {name: _like(array, rng) for name, array in sorted(example.items())}


def _like(array: Array, rng: np.random.Generator) -> Array:
    values = np.unique(array)
    if array.dtype.kind != "f" or values.tolist() == [0.0, 1.0]:
        drawn = rng.choice(values, array.shape)
    elif values.min() < 0:
        drawn = rng.standard_normal(array.shape)
    else:
        drawn = rng.random(array.shape) if values.max() <= 1 else np.abs(rng.standard_normal(array.shape))
    return np.asarray(drawn, array.dtype)


def golden_step(
    model: nn.Module,
    objective: Objective,
    optimizer: OptimizerSpec,
    arrays: Mapping[str, ArraySpec],
    batch: Mapping[str, Array],
) -> dict[str, Array]:
    """Train `model`, in place, for one step on a batch.

    Returns the batch ("batch/..."), the loss, the change of every travelling array ("delta/...") and, as they belong
    to no version, the local arrays at the start ("local/...").
    """
    local = read_arrays(model, names_with(arrays, Role.LOCAL))
    before = read_arrays(model, travelling(arrays))
    given = dict(outcome(model, objective, optimizer, arrays, batch, before))
    return {**_prefixed("batch", batch), **given, **_prefixed("local", local)}


def outcome(
    model: nn.Module,
    objective: Objective,
    optimizer: OptimizerSpec,
    arrays: Mapping[str, ArraySpec],
    batch: Mapping[str, Array],
    before: Tree,
) -> Iterator[tuple[str, Array]]:
    """Train `model`, in place, from `before` for one step; yield the loss and then each change, named as `results`."""
    stepper = Stepper(optimizer, choose_trained(model, arrays))
    model.train()
    with seeded(SEED):
        loss = objective(model, {name: tensor(array) for name, array in batch.items()})
    loss.backward()  # type: ignore[no-untyped-call]
    stepper.step()
    yield "loss", np.asarray(loss.item(), np.float64)
    for name, delta in changes(model, before, travelling(arrays)):
        yield f"delta/{name}", delta


def travelling(arrays: Mapping[str, ArraySpec]) -> list[str]:
    """Return the names of the arrays that are part of every version."""
    return [name for name, spec in arrays.items() if spec.role.travels]


def section(golden: Tree, prefix: str) -> dict[str, Array]:
    """Return the arrays of a golden tree whose names begin with `prefix` and a slash, without it."""
    start = f"{prefix}/"
    return {name.removeprefix(start): golden[name] for name in golden if name.startswith(start)}


def results(golden: Tree) -> list[str]:
    """Return the names of what a golden step gives: the loss and the deltas."""
    return ["loss", *(name for name in golden if name.startswith("delta/"))]


def compare(expected: Tree, got: Iterable[tuple[str, Array]]) -> None:
    """Raise CodeMismatch, naming what differs most, when the loss or a delta is not the expected one.

    Takes one pair of arrays after the other, so that large models need no second copy.
    """
    names = results(expected)
    excess = {name: _excess(expected[name], array) for name, array in got if name in names}
    worst = max(excess, key=lambda name: excess[name])
    if excess[worst] > 1:
        wrong = sum(value > 1 for value in excess.values())
        raise CodeMismatch(
            f"one training step gives another result: {wrong} of {len(names)} values differ, most of all {worst!r} "
            f"({excess[worst]:.3g} times the tolerance)",
            "install the code that the task was published with; activations, loss and dropout must be the same",
        )


def _excess(expected: Array, got: Array) -> float:
    if expected.size == 0:
        return 0.0
    size, largest = np.float64(0), np.float64(0)
    wanted, given = expected.reshape(-1), got.reshape(-1)
    for start in range(0, wanted.size, BLOCK):
        here = wanted[start : start + BLOCK].astype(np.float64)
        size = np.maximum(size, np.abs(here).max())
        largest = np.maximum(largest, np.abs(here - given[start : start + BLOCK]).max())
    tolerance = RELATIVE * size + ABSOLUTE
    return float(largest / tolerance) if np.isfinite(largest) else float("inf")


def _prefixed(prefix: str, tree: Tree) -> dict[str, Array]:
    return {f"{prefix}/{name}": array for name, array in tree.items()}


def differences(expected: Mapping[str, ArraySpec], given: Mapping[str, ArraySpec]) -> Iterable[str]:
    """Yield a sentence for every array that is missing, extra, or has another shape, dtype or role."""
    for name in sorted(expected.keys() - given.keys()):
        yield f"array {name!r} is missing"
    for name in sorted(given.keys() - expected.keys()):
        yield f"array {name!r} is not in the task"
    for name in sorted(expected.keys() & given.keys()):
        if expected[name] != given[name]:
            yield f"array {name!r} is {_described(given[name])}, the task says {_described(expected[name])}"


def _described(spec: ArraySpec) -> str:
    return f"{spec.role} {spec.dtype} {spec.shape}"

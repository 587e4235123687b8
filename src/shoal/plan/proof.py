"""What torch itself makes of a step: a plan's golden step, and the check before a plan is given out."""

import math
from collections.abc import Mapping
from dataclasses import replace

import numpy as np
import torch

from shoal.core.errors import NotExportable
from shoal.core.roles import Role
from shoal.core.tree import Array, Tree
from shoal.plan.manifest import Drawn, Golden, Manifest
from shoal.plan.noise import uniform
from shoal.plan.private import plain_operators
from shoal.plan.randomness import Noise
from shoal.plan.run import Plan, Training, sizes
from shoal.plan.selftest import change, measures, mismatches, start
from shoal.plan.step import Model, evaluating, predicting
from shoal.plan.trace import TRUSTED
from shoal.train.arrays import load_arrays, named_arrays, read_arrays, tensor
from shoal.train.objective import objective
from shoal.train.optimizer import Stepper
from shoal.train.task import Task

SEED = 20260101
LISTED = 256
"""Arrays of up to so many elements begin the golden step with their own numbers; larger ones are drawn."""

NEGLIGIBLE = 1e-6
"""An element of a gradient this small, as a share of the largest, is rounding."""

AGREES = 1e-4
"""How far the graphs may be from torch after the steps that are compared, as a share of an array's largest value."""

STEPS = 3


class Reference:
    """A task's model trained by torch itself, reading the noise that a plan would."""

    def __init__(self, task: Task, params: Tree, manifest: Manifest, seed: int) -> None:
        self._model = Model(task, training=True)
        self._objective = objective(task.loss)
        self._task = task
        self._noise = manifest.noise
        self._seed = seed
        self._steps = 0
        load_arrays(self._model.module, params)
        arrays = named_arrays(self._model.module)
        self._trained = {name: arrays[name] for name in self._model.trained}
        local = task.plan
        self._start = {name: tensor.detach().clone() for name, tensor in self._trained.items()}
        self._stepper = Stepper(local.optimizer, self._trained.values(), local.per_step, local.clip_gradient)  # type: ignore[arg-type]
        self.rounding = {name: np.zeros(tuple(array.shape), np.bool_) for name, array in self._trained.items()}
        """Which elements moved by what is mere rounding: their true gradient is 0, as that of a bias before a norm."""

    @property
    def arrays(self) -> dict[str, Array]:
        """Every array of the model as it is now."""
        return read_arrays(self._model.module, self._model.arrays)

    def step(self, batch: Mapping[str, Array]) -> float:
        """Take one step and return the loss before it."""
        rows = len(next(iter(batch.values())))
        noise = [
            torch.from_numpy(uniform(self._seed, self._steps, index, sizes(shape, rows)))
            for index, shape in enumerate(self._noise)
        ]
        tensors = {name: tensor(array) for name, array in batch.items()}
        if noise:
            with plain_operators(), Noise(noise):
                loss = self._objective(self._model.module, tensors)
        else:
            loss = self._objective(self._model.module, tensors)
        loss.backward()  # type: ignore[no-untyped-call]
        self._pull()
        self._note()
        self._stepper.step()
        self._steps += 1
        return loss.item()

    def _note(self) -> None:
        gradients = {name: p.grad.numpy() for name, p in self._trained.items() if p.grad is not None}
        largest = max((float(np.abs(grad).max()) for grad in gradients.values() if grad.size), default=0.0)
        for name, grad in gradients.items():
            small = np.abs(grad) <= NEGLIGIBLE * largest
            if (small & (grad != 0)).any():  # zeros alone are rows that were not looked up, and the like
                self.rounding[name] |= small

    def _pull(self) -> None:
        mu = self._task.plan.proximal
        for name, parameter in self._trained.items():
            if mu and parameter.grad is not None and self._model.arrays[name].role is Role.TRAINABLE:
                parameter.grad += mu * (parameter.detach() - self._start[name])


def golden_of(task: Task, manifest: Manifest, batch: Mapping[str, Array]) -> tuple[dict[str, Array], Golden]:
    """Return the golden step of a plan, computed by torch, and its rules."""
    listed, drawn = _beginnings(task)
    rules = Golden(SEED, len(next(iter(batch.values()))), drawn)
    given = {f"start/{name}": array for name, array in listed.items()}
    golden: dict[str, Array] = {**given, **{f"batch/{name}": array for name, array in batch.items()}}
    params = start(replace(manifest, golden=rules), golden)
    reference = Reference(task, params, manifest, SEED)
    golden["loss"] = np.asarray([reference.step(batch)])
    after = reference.arrays
    for name in manifest.trained:
        rounding = reference.rounding.get(name, np.zeros(0, np.bool_))
        if rounding.any():
            golden[f"rounding/{name}"] = np.flatnonzero(rounding).astype(np.int32)
        golden[f"change/{name}"] = measures(change(params[name], after[name], golden.get(f"rounding/{name}")))
    return {**golden, **_evaluated(task, manifest, params, batch)}, rules


def _beginnings(task: Task) -> tuple[dict[str, Array], dict[str, Drawn]]:
    model = Model(task, training=True)
    listed, drawn = {}, {}
    for index, (name, array) in enumerate(read_arrays(model.module, model.arrays).items()):
        if array.size <= LISTED or array.dtype.kind != "f":
            listed[name] = array
        else:
            wide = array.astype(np.float64)
            drawn[name] = Drawn(
                index, float(wide.mean()), float(wide.std() * 3**0.5), float(wide.min()), float(wide.max())
            )
    return listed, drawn


def _evaluated(task: Task, manifest: Manifest, params: Tree, batch: Mapping[str, Array]) -> dict[str, Array]:
    model = Model(task, training=False)
    measured = {"loss": task.loss, **{n: m for n, m in task.metrics.items() if n not in manifest.unmeasured}}
    given = {
        **{f"array/{name}": tensor(array) for name, array in params.items()},
        **{f"batch/{name}": tensor(array) for name, array in batch.items()},
    }
    found = {f"predict/{name}": value for name, value in predicting(model)(given).items()}
    found |= {f"evaluate/{name}": value for name, value in evaluating(model, measured)(given).items()}
    return {name: measures(value.detach().numpy()) for name, value in found.items()}


def verified(plan: Plan, task: Task, batch: Mapping[str, Array]) -> None:
    """Compare some steps from the task's own arrays with torch. Raises NotExportable when they differ."""
    wrong = list(mismatches(plan))
    if wrong:
        raise NotExportable(f"the exported step is not torch's: {'; '.join(wrong)}", TRUSTED)
    model = Model(task, training=True)
    params = read_arrays(model.module, model.arrays)
    training, reference = (
        Training(plan, params, seed=1, rate=task.plan.per_step),
        Reference(task, params, plan.manifest, 1),
    )
    losses = [(training.step(batch), reference.step(batch)) for _ in range(STEPS)]
    far = [name for name in plan.manifest.trained if _apart(name, training.arrays, reference) > AGREES]
    if far or not all(math.isclose(*pair, rel_tol=AGREES, abs_tol=AGREES) for pair in losses):
        raise NotExportable(
            f"after {STEPS} steps the exported model differs from torch's in {far or 'its loss'}", TRUSTED
        )


def _apart(name: str, found: Tree, reference: Reference) -> float:
    if name in reference.rounding:
        steady = ~reference.rounding[name]
        return distance(found[name][steady], reference.arrays[name][steady])
    follows = any(rounding.any() for rounding in reference.rounding.values())
    # running means follow a bias that moves by rounding
    return 0.0 if follows else distance(found[name], reference.arrays[name])


def distance(found: Array, expected: Array) -> float:
    """Return the largest difference of two arrays as a share of the expected one's largest value."""
    if expected.size == 0:
        return 0.0
    largest = float(np.abs(expected).max())
    apart = float(np.abs(found.astype(np.float64) - expected.astype(np.float64)).max())
    return apart / largest if largest else apart

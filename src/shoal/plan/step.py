"""One training step, one prediction and one evaluation as functions of named tensors and nothing else."""

import copy
import inspect
from collections.abc import Callable, Mapping
from typing import Any, TypeAlias

import torch
from torch import nn

from shoal.core.errors import NotExportable
from shoal.core.roles import Role
from shoal.core.task import LocalPlan, OptimizerSpec
from shoal.plan.private import leaves as leaves_of
from shoal.train.arrays import choose_trained, named_arrays
from shoal.train.objective import Measure, objective, takes_model
from shoal.train.optimizer import build
from shoal.train.startup import light_step
from shoal.train.task import Task

Tensors: TypeAlias = dict[str, torch.Tensor]
Named: TypeAlias = Callable[[Mapping[str, torch.Tensor]], Tensors]
"""From inputs by name to outputs by name."""

RATE = "learning_rate"


class Model:
    """A task's model with its arrays as arguments."""

    def __init__(self, task: Task, *, training: bool) -> None:
        self.task = task
        self.arrays = task.arrays
        self._module = _Measured(copy.deepcopy(task.model).train(training))
        trained = {id(parameter) for parameter in choose_trained(self.module, self.arrays)}
        self.trained = [name for name, tensor in named_arrays(self.module).items() if id(tensor) in trained]

    @property
    def module(self) -> nn.Module:
        """The module itself."""
        return self._module.model

    def call(
        self, measure: Callable[[nn.Module, Mapping[str, torch.Tensor]], Any], given: Tensors, batch: Tensors
    ) -> Any:
        """Call `measure` on the module and a batch, the module's arrays being `given`."""
        arrays = {f"model.{name}": tensor for name, tensor in given.items()}
        return torch.func.functional_call(self._module, arrays, (measure, batch))


class _Measured(nn.Module):
    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self.model = model

    def forward(self, measure: Callable[..., Any], batch: Tensors) -> Any:
        return measure(self.model, batch)


def inputs(model: Model, batch: Mapping[str, torch.Tensor], plan: LocalPlan | None = None) -> Tensors:
    """Return examples of everything that a function here takes; with `plan`, of what a training step takes."""
    arrays = {name: tensor.detach().clone() for name, tensor in named_arrays(model.module).items()}
    found = {**_prefixed("array", arrays), **_prefixed("batch", batch)}
    if plan is None:
        return found
    found |= _prefixed("state", slots(plan.optimizer, {name: arrays[name] for name in model.trained}))
    if plan.proximal:
        found |= _prefixed("start", {name: arrays[name].clone() for name in _pulled(model)})
    options = {**build(plan.optimizer, [nn.Parameter(torch.zeros(1))]).defaults}
    return {**found, RATE: torch.tensor(float(options["lr"]))}


def slots(spec: OptimizerSpec, trained: Tensors) -> Tensors:
    """Return the state with which an optimizer of torch.optim begins. One count of steps serves all arrays."""
    if spec.name in ("adam", "adamw"):
        moments = {
            f"{name}/{slot}": torch.zeros_like(p) for name, p in trained.items() for slot in ("exp_avg", "exp_avg_sq")
        }
        return {"step": torch.zeros((), dtype=torch.float64), **moments}
    if not spec.options.get("momentum"):
        return {}
    buffers = {f"{name}/momentum_buffer": torch.zeros_like(p) for name, p in trained.items()}
    return {**({"begun": torch.zeros(())} if spec.options.get("dampening") else {}), **buffers}


def training(model: Model, plan: LocalPlan) -> Named:
    """Return one step of local training: forward, backward, FedProx's pull, and the step of torch.optim."""
    measure = objective(model.task.loss)

    def step(given: Mapping[str, torch.Tensor]) -> Tensors:
        arrays = {name: tensor.clone() for name, tensor in _section(given, "array").items()}
        leaves = {name: arrays[name].detach().requires_grad_() for name in model.trained}
        with torch.enable_grad():
            loss = model.call(measure, {**arrays, **leaves}, _section(given, "batch"))
            grads = torch.autograd.grad(loss, list(leaves.values()), allow_unused=True)
        with torch.no_grad():
            gradients = {name: grad for name, grad in zip(leaves, grads, strict=True) if grad is not None}
            _pull(model, plan.proximal, gradients, given)
            if plan.clip_gradient is not None:
                gradients = _clipped(gradients, plan.clip_gradient)
            params = {name: arrays[name] for name in gradients}
            after, state = _stepped(plan.optimizer, params, gradients, _section(given, "state"), given[RATE])
        return {
            "loss": loss.detach(),
            **_prefixed("after/array", {**arrays, **after}),
            **_prefixed("after/state", state),
        }

    return step


def predicting(model: Model) -> Named:
    """Return the model's output in evaluation mode, of the batch arrays that its forward takes."""
    names = predicted_from(model)

    def predict(given: Mapping[str, torch.Tensor]) -> Tensors:
        batch = _section(given, "batch")

        def called(module: nn.Module, batch: Mapping[str, torch.Tensor]) -> Any:
            return module(batch["x"]) if names == ["x"] else module(**{name: batch[name] for name in names})

        with torch.no_grad():
            output = model.call(called, _section(given, "array"), batch)
        if isinstance(output, torch.Tensor):
            return {"output": output}
        leaves = leaves_of(output)
        if not leaves or not all(isinstance(leaf, torch.Tensor) for leaf in leaves):
            raise NotExportable(f"a model that returns {type(output).__name__}", "return tensors from its forward")
        return {f"output/{index}": leaf for index, leaf in enumerate(leaves)}

    return predict


def predicted_from(model: Model) -> list[str]:
    """Return which arrays of a batch the model's forward takes."""
    example = model.task.example
    if not takes_model(model.task.loss):
        return ["x"]
    taken = inspect.signature(model.module.forward).parameters
    names = [name for name in taken if isinstance(example, Mapping) and name in example]
    return names or ["x"]


def evaluating(model: Model, measures: Mapping[str, Measure]) -> Named:
    """Return measures of a batch in evaluation mode, each a scalar."""

    def evaluate(given: Mapping[str, torch.Tensor]) -> Tensors:
        batch = _section(given, "batch")
        with torch.no_grad():
            found = {
                name: model.call(objective(measure), _section(given, "array"), batch)
                for name, measure in measures.items()
            }
        for name, value in found.items():
            if not isinstance(value, torch.Tensor) or value.numel() != 1:
                raise NotExportable(f"metric {name!r}, a {type(value).__name__}", "return a scalar tensor from it")
        return {f"measure/{name}": value.reshape(()).double() for name, value in found.items()}

    return evaluate


def _stepped(
    spec: OptimizerSpec, params: Tensors, gradients: Tensors, state: Tensors, rate: torch.Tensor
) -> tuple[Tensors, Tensors]:
    after, later = _optimized(spec, params, gradients, state, rate)
    if "begun" not in state:
        return after, later
    first, begun = _optimized(spec, params, gradients, {}, rate)
    is_first = state["begun"] == 0  # torch's momentum begins with the first gradient, which dampening spares
    chosen = {name: torch.where(is_first, first[name], after[name]) for name in after}
    return chosen, {
        **{name: torch.where(is_first, begun[name], later[name]) for name in later},
        "begun": torch.ones_like(state["begun"]),
    }


def _optimized(
    spec: OptimizerSpec, params: Tensors, gradients: Tensors, state: Tensors, rate: torch.Tensor
) -> tuple[Tensors, Tensors]:
    """Take one step of the torch.optim class itself, its state and learning rate being arguments."""
    moved = {name: tensor.clone() for name, tensor in params.items()}
    optimizer = build(spec, [nn.Parameter(torch.zeros(1))])
    (group,) = optimizer.param_groups
    # differentiable: the one form in which learning rate and count of steps are tensors throughout
    group |= {
        "params": list(moved.values()),
        "lr": rate.detach().requires_grad_(),
        "differentiable": True,
        "foreach": False,
    }
    optimizer.state.clear()
    for name, tensor in moved.items():
        tensor.grad = gradients[name]
        own = {slot.rpartition("/")[2]: s.clone() for slot, s in state.items() if slot.rpartition("/")[0] == name}
        if "step" in state:
            own["step"] = state["step"].clone()
        if own:
            optimizer.state[tensor] = own
    light_step(optimizer)()
    return moved, _kept(optimizer, moved)


def _kept(optimizer: torch.optim.Optimizer, moved: Tensors) -> Tensors:
    kept: Tensors = {}
    for name, tensor in moved.items():
        for slot, value in optimizer.state[tensor].items():
            if isinstance(value, torch.Tensor):
                kept["step" if slot == "step" else f"{name}/{slot}"] = value.detach()
    return {name: kept[name] for name in sorted(kept)}


def _pulled(model: Model) -> list[str]:
    return [name for name in model.trained if model.arrays[name].role is Role.TRAINABLE]


def _pull(model: Model, mu: float, gradients: Tensors, given: Mapping[str, torch.Tensor]) -> None:
    """Add FedProx's gradient, mu * (w - w_global)."""
    if not mu:
        return
    for name in _pulled(model):
        if name in gradients:
            gradients[name] = gradients[name].add(given[f"array/{name}"] - given[f"start/{name}"], alpha=mu)


def _clipped(gradients: Tensors, most: float) -> Tensors:
    """Scale gradients so that their L2 norm is `most` at most, as torch.nn.utils.clip_grad_norm_ does."""
    total = torch.stack([(gradient * gradient).sum() for gradient in gradients.values()]).sum().sqrt()
    factor = torch.clamp(most / (total + 1e-6), max=1.0)
    return {name: gradient * factor for name, gradient in gradients.items()}


def _section(given: Mapping[str, torch.Tensor], prefix: str) -> Tensors:
    start = f"{prefix}/"
    return {name.removeprefix(start): tensor for name, tensor in given.items() if name.startswith(start)}


def _prefixed(prefix: str, tensors: Mapping[str, torch.Tensor]) -> Tensors:
    return {f"{prefix}/{name}": tensor for name, tensor in tensors.items()}

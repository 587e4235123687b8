"""The arrays of a module: which there are, what each is for, and moving them between torch and numpy."""

from collections.abc import Iterable, Iterator, Mapping
from fnmatch import fnmatchcase

import numpy as np
import torch
from torch import nn

from shoal.algorithms.registry import nearest
from shoal.algorithms.strategy import NORMALISATION
from shoal.core.errors import TaskError, UnsupportedArray
from shoal.core.roles import Role
from shoal.core.task import ArraySpec
from shoal.core.tree import DTYPES, Array, Tree


def named_arrays(model: nn.Module) -> dict[str, torch.Tensor]:
    """Return parameters and persistent buffers by name; an array that several modules share is listed once."""
    persistent = model.state_dict(keep_vars=True).keys()
    buffers = {name: buffer for name, buffer in model.named_buffers() if name in persistent}
    return {**dict(model.named_parameters()), **buffers}


def describe(model: nn.Module, roles: Mapping[str, Role | str] | None = None) -> dict[str, ArraySpec]:
    """Return the layout and role of every array of a module.

    `roles` overrides the default roles by glob patterns on names, later patterns winning. Raises UnsupportedArray
    for a dtype that cannot travel in its role, TaskError for a pattern that matches nothing.
    """
    arrays = named_arrays(model)
    chosen = {name: _default_role(tensor) for name, tensor in arrays.items()}
    for pattern, role in (roles or {}).items():
        for name in _matching(pattern, arrays):
            chosen[name] = _role(pattern, role)
    return {name: _spec(name, tensor, chosen[name]) for name, tensor in arrays.items()}


NORMALISING = (
    nn.modules.batchnorm._NormBase,
    nn.LayerNorm,
    nn.GroupNorm,
    nn.RMSNorm,
    nn.LocalResponseNorm,
)


def local_roles(model: nn.Module, staying: Iterable[str]) -> dict[str, Role]:
    """Return the role local for what a strategy lets stay with clients: patterns, or `NORMALISATION`.

    Raises TaskError when a model has no layer that normalises.
    """
    found: dict[str, Role] = {}
    for pattern in staying:
        names = _normalising(model) if pattern == NORMALISATION else [pattern]
        found.update(dict.fromkeys(names, Role.LOCAL))
    return found


def _normalising(model: nn.Module) -> list[str]:
    prefixes = [name for name, module in model.named_modules() if isinstance(module, NORMALISING)]
    names = [name for name in named_arrays(model) if name.rpartition(".")[0] in prefixes]
    if not names:
        raise TaskError("the model has no layer that normalises", "name what stays: shoal.fedper(...)")
    return names


def _default_role(tensor: torch.Tensor) -> Role:
    if isinstance(tensor, nn.Parameter):
        return Role.TRAINABLE if tensor.requires_grad else Role.FROZEN
    if tensor.dtype.is_floating_point:
        return Role.BUFFER
    return Role.FROZEN if tensor.dtype in (torch.bool, torch.uint8) else Role.COUNTER


def _matching(pattern: str, names: Iterable[str]) -> list[str]:
    found = [name for name in names if fnmatchcase(name, pattern)]
    if not found:
        hint = nearest(pattern, names)
        raise TaskError(f"roles: {pattern!r} matches no array", f"the model has {', '.join(names)}{hint}")
    return found


def _role(pattern: str, role: Role | str) -> Role:
    try:
        return Role(role)
    except ValueError:
        known = [known.value for known in Role]
        raise TaskError(
            f"roles: {pattern!r} has the role {role!r}", f"use one of {', '.join(known)}{nearest(str(role), known)}"
        ) from None


def _spec(name: str, tensor: torch.Tensor, role: Role) -> ArraySpec:
    dtype = str(tensor.dtype).removeprefix("torch.")
    if dtype not in DTYPES:
        raise UnsupportedArray(f"array {name!r} has dtype {dtype}", f"convert it to one of {', '.join(DTYPES)}")
    if role is Role.TRAINABLE and not isinstance(tensor, nn.Parameter):
        raise UnsupportedArray(f"buffer {name!r} with the role trainable", "make it an nn.Parameter")
    try:
        return ArraySpec(tuple(tensor.shape), dtype, role)
    except UnsupportedArray as error:
        raise UnsupportedArray(f"array {name!r}: {error.problem}", error.fix) from None


def read_arrays(model: nn.Module, names: Iterable[str]) -> dict[str, Array]:
    """Copy these arrays of a module to numpy."""
    arrays = named_arrays(model)
    return {name: arrays[name].detach().cpu().numpy().copy() for name in names}


def changes(model: nn.Module, start: Tree, names: Iterable[str]) -> Iterator[tuple[str, Array]]:
    """Yield by how much these arrays of a module differ from `start`, one after the other."""
    arrays = named_arrays(model)
    return ((name, np.asarray(arrays[name].detach().cpu().numpy() - start[name])) for name in names)


def load_arrays(model: nn.Module, tree: Tree) -> None:
    """Copy a tree into a module, in place. Raises TaskError for an array that the module lacks or that differs."""
    arrays = named_arrays(model)
    unknown = sorted(tree.keys() - arrays.keys())
    if unknown:
        raise TaskError(f"the model has no arrays {unknown}", "use the code that the task was published with")
    with torch.no_grad():
        for name, array in tree.items():
            into, given = arrays[name], tensor(array)
            if into.shape != given.shape or into.dtype != given.dtype:
                raise TaskError(
                    f"array {name!r} is {_layout(given)}, the model's is {_layout(into)}",
                    "use the code that the task was published with",
                )
            into.copy_(given)


def choose_trained(model: nn.Module, arrays: Mapping[str, ArraySpec]) -> list[nn.Parameter]:
    """Return the parameters that local training moves, trainable and local ones; the others stop taking gradients."""
    for name, parameter in model.named_parameters():
        role = arrays[name].role
        parameter.requires_grad_(role is Role.TRAINABLE or (role is Role.LOCAL and parameter.requires_grad))
    return [parameter for parameter in model.parameters() if parameter.requires_grad]


def names_with(arrays: Mapping[str, ArraySpec], *roles: Role) -> Iterator[str]:
    """Yield the names of the arrays that have one of these roles."""
    return (name for name, spec in arrays.items() if spec.role in roles)


def tensor(array: Array) -> torch.Tensor:
    """Return a tensor over an array's memory; read-only and strided arrays, which torch lacks, are copied first."""
    return torch.from_numpy(np.require(array, requirements=["C", "W"]))


def _layout(given: torch.Tensor) -> str:
    return f"{str(given.dtype).removeprefix('torch.')} {tuple(given.shape)}"

"""Averaging models that are at several workers, or here (McMahan et al. 2017, arXiv:1602.05629, algorithm 1)."""

import copy
import math
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from typing import TypeVar

import torch
from torch import nn

from shoal.core.errors import TaskError, WrongPlace
from shoal.remote.sending import forget_hooks
from shoal.remote.tensor import RemoteTensor

M = TypeVar("M", bound=nn.Module)
State = dict[str, torch.Tensor]


def federated_avg(models: Mapping[str, M], weights: Mapping[str, float] | None = None) -> M:
    """Return a new local model whose arrays are the weighted means of those of `models`, which stay as they are.

    `weights` has a number for each name, such as rows; without it all count alike. Means are summed in float64 in
    the order of the names; integer buffers, which are counters, take the maximum. Models at workers are fetched all
    at once. Raises TaskError for models or weights that do not belong together, NotPermitted where an owner keeps one.
    """
    if not models:
        raise TaskError("an average of no models", "give at least one")
    shares = _shares(list(models), weights)
    # how many threads an operator takes is a setting of each thread, and a virtual worker runs on the one that asks
    like_this = torch.set_num_threads, (torch.get_num_threads(),)
    with ThreadPoolExecutor(len(models), initializer=like_this[0], initargs=like_this[1]) as threads:
        states = dict(zip(models, threads.map(_fetched, models.values()), strict=True))
    first = next(iter(models))
    for name, state in states.items():
        _check(first, states[first], name, state)
    average = {key: _mean(key, states, shares) for key in states[first]}
    return _rebuilt(models[first], average)


def _shares(names: list[str], weights: Mapping[str, float] | None) -> dict[str, float]:
    given = dict.fromkeys(names, 1.0) if weights is None else {name: float(weight) for name, weight in weights.items()}
    if given.keys() != set(names):
        raise TaskError(f"weights for {sorted(given)} and models of {sorted(names)}", "give a weight for each model")
    total = math.fsum(given.values())
    if not all(0 <= weight < math.inf for weight in given.values()) or total <= 0:
        raise TaskError(f"weights {given}", "give finite numbers from 0 on, at least one of them above 0")
    return {name: given[name] / total for name in sorted(given)}


def _fetched(model: nn.Module) -> State:
    return {key: _here(value.detach()) for key, value in model.state_dict(keep_vars=True).items()}


def _here(tensor: torch.Tensor) -> torch.Tensor:
    return tensor.get() if isinstance(tensor, RemoteTensor) else tensor


def _check(first: str, expected: State, name: str, state: State) -> None:
    for key in expected.keys() | state.keys():
        pair = [each[key].shape if key in each else None for each in (expected, state)]
        if pair[0] != pair[1]:
            raise TaskError(
                f"array {key!r} is {_said(pair[0])} in model {first!r} and {_said(pair[1])} in model {name!r}",
                "average models of one architecture",
            )


def _said(shape: torch.Size | None) -> str:
    return "missing" if shape is None else f"of shape {list(shape)}"


def _mean(key: str, states: Mapping[str, State], shares: Mapping[str, float]) -> torch.Tensor:
    arrays = [states[name][key] for name in shares]
    if not (arrays[0].is_floating_point() or arrays[0].is_complex()):
        return torch.stack(arrays).amax(0) if arrays[0].dtype != torch.bool else torch.stack(arrays).any(0)
    wide = torch.complex128 if arrays[0].is_complex() else torch.float64
    total = torch.zeros_like(arrays[0], dtype=wide)
    for array, share in zip(arrays, shares.values(), strict=True):
        total += array.to(wide) * share
    return total.to(arrays[0].dtype)


def _rebuilt(model: M, arrays: State) -> M:
    """Return a copy of a model with other arrays, whatever it holds besides; tied ones stay tied."""
    memo: dict[int, torch.Tensor] = {}
    for key, value in model.state_dict(keep_vars=True).items():
        if id(value) not in memo:
            mean = arrays[key]
            memo[id(value)] = nn.Parameter(mean, value.requires_grad) if isinstance(value, nn.Parameter) else mean
    for each in (*model.parameters(), *model.buffers()):
        if id(each) not in memo and isinstance(each, RemoteTensor):  # a buffer that is no part of the state
            memo[id(each)] = _here(each.detach())
    try:
        copied = copy.deepcopy(model, memo)
    except RuntimeError as error:
        raise WrongPlace("a model that a graph still needs", "drop losses and outputs computed with it") from error
    forget_hooks(model, copied)
    return copied

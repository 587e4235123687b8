"""Sending tensors, modules and data sets to a worker, and fetching them."""

import asyncio
import weakref
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, TypeVar, cast

import torch
from torch import nn
from torch.utils import swap_tensors
from torch.utils.data import TensorDataset
from torch.utils.hooks import RemovableHandle

from shoal.core.errors import WrongPlace
from shoal.remote.optimizers import follow
from shoal.remote.places import enter, leave
from shoal.remote.tensor import RemoteTensor, wrapped

if TYPE_CHECKING:
    from shoal.remote.worker import Worker

T = TypeVar("T")

_hooks: "weakref.WeakKeyDictionary[nn.Module, tuple[RemovableHandle, ...]]" = weakref.WeakKeyDictionary()


def send(thing: T, worker: "Worker", *, tags: Iterable[str] = (), description: str = "") -> T:
    """Send a tensor, a module or a TensorDataset to a worker.

    A tensor or a data set gives a new one whose values are there. A module moves in place, with its gradients:
    optimizers made before go on with it, and `get` brings it back. Raises WrongPlace for other things, and for a
    module that a graph still needs.
    """
    if isinstance(thing, nn.Module):
        follow()
        for module in thing.modules():
            _send_module(module, worker)
        _compute_in_place(thing)
        return thing
    if isinstance(thing, TensorDataset):
        return cast(T, TensorDataset(*(_sent(each, worker) for each in thing.tensors)))
    if isinstance(thing, torch.Tensor):
        sent = _sent(thing, worker)
        sent._tags, sent._description = tuple(tags), description
        return cast(T, sent)
    raise WrongPlace(f"a {type(thing).__name__} cannot be sent", "send tensors, modules and TensorDatasets")


def get(thing: T, reason: str | None = None) -> T:
    """Fetch a tensor's values, or bring a module back in place. Raises NotPermitted where the owner keeps them."""
    if isinstance(thing, nn.Module):
        for module in thing.modules():
            with _no_weak_references(module):
                for tensor in _own(module):
                    _fetch_in_place(tensor, reason)
        for hook in _hooks.pop(thing, ()):
            hook.remove()
        return thing
    if isinstance(thing, TensorDataset):
        return cast(T, TensorDataset(*(get(each, reason) for each in thing.tensors)))
    if isinstance(thing, RemoteTensor):
        return cast(T, thing.get(reason))
    raise WrongPlace(f"a {type(thing).__name__} is not at a worker", "fetch what was sent")


async def get_async(thing: T, reason: str | None = None) -> T:
    """Fetch as `get` does while the event loop goes on."""
    return await asyncio.to_thread(get, thing, reason)


def _compute_in_place(module: nn.Module) -> None:
    """Let what a module makes of nothing, such as the first state of a recurrent layer, be made where it is."""
    if module not in _hooks:
        _hooks[module] = (
            module.register_forward_pre_hook(_entered),
            module.register_forward_hook(_left, always_call=True),
        )


def forget_hooks(module: nn.Module, copied: nn.Module) -> None:
    """Take off a copy what lets its original compute at a worker."""
    for handle in _hooks.get(module, ()):
        for hooks in (copied._forward_pre_hooks, copied._forward_hooks, copied._forward_hooks_always_called):
            hooks.pop(handle.id, None)


def _entered(module: nn.Module, _: Any) -> None:
    first = next(module.parameters(), None)
    enter(first.location if isinstance(first, RemoteTensor) else None)


def _left(*_: Any) -> None:
    leave()


def _sent(tensor: torch.Tensor, worker: "Worker") -> RemoteTensor:
    if isinstance(tensor, RemoteTensor):
        return tensor if tensor.location is worker else _sent(tensor.get(), worker)
    return wrapped(worker, tensor, requires_grad=tensor.requires_grad)


def _own(module: nn.Module) -> Iterator[torch.Tensor]:
    yield from module.parameters(recurse=False)
    yield from module.buffers(recurse=False)


def _send_module(module: nn.Module, worker: "Worker") -> None:
    with _no_weak_references(module):
        for tensor in _own(module):
            if not (isinstance(tensor, RemoteTensor) and tensor.location is worker):
                _replace(tensor, _sent(tensor.detach(), worker), worker)


def _replace(tensor: torch.Tensor, values: torch.Tensor, worker: "Worker | None") -> None:
    """Put other values, elsewhere, into the same Python object: optimizers and modules go on to hold it."""
    gradient, tensor.grad = tensor.grad, None
    if isinstance(tensor, nn.Parameter):
        values = nn.Parameter(values, tensor.requires_grad)
    try:
        swap_tensors(tensor, values)  # type: ignore[no-untyped-call]
    except RuntimeError as error:
        raise WrongPlace(
            f"a parameter of shape {tuple(tensor.shape)} is in use elsewhere",
            "drop the losses and outputs that were computed with it (del loss), and references to its values",
        ) from error
    if gradient is not None:
        tensor.grad = get(gradient) if worker is None else _sent(gradient, worker)


def _fetch_in_place(tensor: torch.Tensor, reason: str | None) -> None:
    if isinstance(tensor, RemoteTensor):
        _replace(tensor, cast(RemoteTensor, tensor.detach()).get(reason), None)


@contextmanager
def _no_weak_references(module: nn.Module) -> Iterator[None]:
    """Recurrent layers keep weak references to their parameters, with which torch refuses to swap them."""
    if not isinstance(module, nn.RNNBase):
        yield
        return
    module._flat_weight_refs = []
    try:
        yield
    finally:
        weights: list[Any] = module._flat_weights
        module._flat_weight_refs = [None if each is None else weakref.ref(each) for each in weights]

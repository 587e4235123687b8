"""All that the exporter uses of torch beyond its documented interface, in one place.

`tests/plan/test_private.py` names the versions of torch on which this file was seen to work.
"""

import inspect
import warnings
from collections.abc import Callable, Iterator, MutableMapping
from contextlib import contextmanager
from typing import Any
from unittest.mock import patch

import torch
from torch import nn
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves
from torch.utils.weak import WeakIdKeyDictionary


class DispatchMode(TorchDispatchMode):  # type: ignore[no-untyped-call]
    """Sees every operator that is called inside, below autograd: `__torch_dispatch__`."""

    def __init_subclass__(cls) -> None:
        super().__init_subclass__()  # type: ignore[no-untyped-call]
        # torch wraps it in a function that imports its compiler, 2 CPU seconds, to tell it to look away
        cls.__torch_dispatch__ = inspect.unwrap(cls.__torch_dispatch__)  # type: ignore[method-assign]

    def __init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call]


def by_tensor() -> MutableMapping[torch.Tensor, Any]:
    """Return an empty mapping whose keys are tensors themselves, not their numbers, for as long as they are alive."""
    return WeakIdKeyDictionary()


def leaves(tree: Any) -> list[Any]:
    """Return what nested lists, tuples and mappings hold."""
    return tree_leaves(tree)


@contextmanager
def plain_operators() -> Iterator[None]:
    """Let torch use operators that can be taken apart: no oneDNN recurrent layers, no fused attention.

    A mask of a transformer is not looked at to find out whether it is causal, which would depend on data.
    """
    from torch.nn.attention import SDPBackend, sdpa_kernel

    fast = torch.backends.mha.get_fastpath_enabled()
    torch.backends.mha.set_fastpath_enabled(False)
    try:
        mask = patch.object(nn.modules.transformer, "_detect_is_causal_mask", _said_to_be_causal)
        with _without_onednn(), sdpa_kernel(SDPBackend.MATH), mask:
            yield
    finally:
        torch.backends.mha.set_fastpath_enabled(fast)


@contextmanager
def _without_onednn() -> Iterator[None]:
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "TF32", UserWarning)
        with torch.backends.mkldnn.flags(enabled=False):
            yield


def _said_to_be_causal(mask: object, is_causal: bool | None = None, size: object = None) -> bool:  # noqa: ARG001
    return bool(is_causal)


def core_decompositions() -> dict[Any, Callable[..., Any]]:
    """Return torch's own decompositions to its core operators."""
    from torch._decomp import _core_aten_decompositions_post_autograd, get_decompositions

    aten = torch.ops.aten
    further = [aten.native_layer_norm, aten.gelu, aten.silu, aten._adaptive_avg_pool2d]
    return {**_core_aten_decompositions_post_autograd(), **get_decompositions(further)}

"""All that the exporter uses of torch beyond its documented interface, in one place.

`tests/plan/test_private.py` names the versions of torch on which this file was seen to work.
"""

import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any
from unittest.mock import patch

import torch
from torch import fx, nn
from torch.fx import traceback
from torch.fx.experimental.proxy_tensor import make_fx

Flat = Callable[..., list[torch.Tensor]]


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


def recorded(function: Flat, flat: Sequence[torch.Tensor]) -> fx.GraphModule:
    """Return what a function does to tensors, as a graph of operators, each noting where it came from."""
    with traceback.preserve_node_meta():
        return make_fx(function)(*flat)


def decomposed(
    graph: fx.GraphModule, flat: Sequence[torch.Tensor], table: Mapping[Any, Callable[..., Any]]
) -> fx.GraphModule:
    """Return the same graph without operators that change an array in place, and in terms of fewer operators."""

    def replayed(*given: torch.Tensor) -> Any:
        return fx.Interpreter(graph).run(*given)

    functional = torch.func.functionalize(replayed, remove="mutations_and_views")
    with torch.no_grad(), traceback.preserve_node_meta():
        return make_fx(functional, decomposition_table=dict(table))(*flat)


def where(node: fx.Node) -> str:
    """Return where a node of a graph came from."""
    return str((node.meta.get("custom") or {}).get("where", ""))


def core_decompositions() -> dict[Any, Callable[..., Any]]:
    """Return torch's own decompositions to its core operators."""
    from torch._decomp import core_aten_decompositions, get_decompositions

    aten = torch.ops.aten
    further = [aten.native_layer_norm, aten.gelu, aten.silu, aten._adaptive_avg_pool2d]
    return {**core_aten_decompositions(), **get_decompositions(further)}

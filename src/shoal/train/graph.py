"""The vmapped step, traced once to plain tensor operations and replayed without torch.func.

make_fx records what vmap and grad did as a graph of aten operations. Passes then take out what moves no bit (views of
the same shape, multiplications by one that gradients begin with), and fold each weight's own step into the matrix
product that gives its gradient. The result runs in TorchScript's interpreter, which costs a quarter of Python's
dispatch; torch.jit is deprecated in favour of torch.compile, which needs a C++ compiler and half a minute.

A trace holds the shapes it was made with. Buckets keep them few: see `bucket`.
"""

import math
import warnings
from collections.abc import Callable, Iterator, Sequence
from typing import Any, TypeAlias

import torch
from torch.fx import GraphModule, Node

from shoal.core.errors import NotTraceable, TaskError
from shoal.train.functional import Arrays
from shoal.train.objective import USER_ERRORS
from shoal.train.randomness import seeded
from shoal.train.step import Step, StepMaker

aten = torch.ops.aten

BUCKETS = 8
"""Numbers of live clients for which a chunk's step is traced: eighths of the chunk."""

TOLERANCE = 1e-5
"""How far a replayed step may be from the untraced one, as a share of an array's largest value."""

Rule: TypeAlias = Callable[[Node], Node | None]
"""Returns what a node can be replaced by, if anything."""
Finish: TypeAlias = Callable[[GraphModule, Arrays], Step]
"""Makes a step of a graph; gets operands of the shapes it is for."""


class TracedStep:
    """A step that traces itself for every new shape of its operands; `check`ed against the untraced step then.

    Raises NotTraceable when the model cannot be traced or its replay is not the step.
    """

    def __init__(self, maker: StepMaker, finish: Finish) -> None:
        self._eager = maker.eager()
        self._finish = finish
        self._traces: dict[tuple[torch.Size, ...], Step] = {}

    def __call__(self, *flat: torch.Tensor) -> torch.Tensor:
        """Take one step."""
        shapes = tuple(tensor.shape for tensor in flat)
        found = self._traces.get(shapes)
        if found is None:
            found = self._traces[shapes] = self._trace(list(flat))
        with torch.no_grad():
            return found(*flat)

    def _trace(self, flat: Arrays) -> Step:
        before = torch.get_rng_state()  # recording and checking take steps, which draw random numbers
        try:
            replay = self._finish(simplified(recorded(self._eager, flat)), flat)
            check(self._eager, replay, flat)
        except USER_ERRORS as error:
            raise NotTraceable(f"the step cannot be traced: {error}", 'train with trainer="vmapped"') from error
        finally:
            torch.set_rng_state(before)
        return replay


def bucket(live: int, chunk: int) -> int:
    """Round the number of live clients up to a multiple of an eighth of the chunk."""
    size = math.ceil(chunk / BUCKETS)
    return min(chunk, math.ceil(live / size) * size)


def recorded(step: Step, flat: Arrays) -> GraphModule:
    """Record what a step does to copies of its operands."""
    from torch.fx.experimental.proxy_tensor import make_fx  # 2 CPU seconds, which a short run need not pay

    return make_fx(step)(*_copies(flat))


def scripted(module: GraphModule, flat: Arrays) -> Step:
    """Return a graph as a TorchScript function, or itself where TorchScript lacks an operation's arguments."""
    with warnings.catch_warnings(), torch.no_grad():
        warnings.simplefilter("ignore", DeprecationWarning)
        try:
            traced: Step = torch.jit.trace(module, tuple(_copies(flat)), check_trace=False)  # type: ignore[no-untyped-call]
        except RuntimeError:  # the same operations, dispatched by Python
            return module
    return traced


def compiled(module: GraphModule, flat: Arrays) -> Step:
    """Return a graph as machine code, by torch.compile. Raises TaskError when there is no C++ compiler."""
    try:
        with warnings.catch_warnings(), torch.no_grad():
            warnings.simplefilter("ignore", DeprecationWarning)  # torch's compiler imports what torch deprecates
            fast: Step = torch.compile(module, dynamic=False)
            fast(*_copies(flat))
    except RuntimeError as error:
        raise TaskError(
            f'trainer "compiled": {str(error).splitlines()[0]}', 'install a C++ compiler, or use trainer="graph"'
        ) from error
    return fast


def check(eager: Step, replay: Step, flat: Arrays) -> None:
    """Raise NotTraceable unless both steps move their operands alike and return the same losses."""
    wanted, given = _copies(flat), _copies(flat)
    with seeded(0):
        wanted.append(eager(*wanted))
    with seeded(0), torch.no_grad():
        given.append(replay(*given))
    worst = max(_distance(left, right) for left, right in zip(wanted, given, strict=True))
    if not worst <= TOLERANCE:
        raise NotTraceable(
            f"the traced step differs from the step by {worst:.3g} of an array's largest value",
            'train with trainer="vmapped"',
        )


def simplified(module: GraphModule) -> GraphModule:
    """Take out what moves no bit, and fold the steps of weights into the products that give their gradients."""
    graph = module.graph
    for node in _calls(module):
        for rule in (_same_shape, _transposed_back, _times_one, _times_ones):
            replacement = rule(node)
            if replacement is not None:
                node.replace_all_uses_with(replacement)
                graph.erase_node(node)
                break
    graph.eliminate_dead_code()
    for node in _calls(module):
        _fold_step(node)
    graph.eliminate_dead_code()
    graph.lint()
    module.recompile()
    return module


def _calls(module: GraphModule) -> Iterator[Node]:
    return (node for node in list(module.graph.nodes) if node.op == "call_function")


def _same_shape(node: Node) -> Node | None:
    views = (aten.expand.default, aten.view.default, aten._unsafe_view.default)
    if node.target in (aten.detach.default, aten.alias.default):
        return _input(node)
    return _input(node) if node.target in views and _shape(_input(node)) == _shape(node) else None


def _transposed_back(node: Node) -> Node | None:
    inner = _input(node)
    if node.target is not aten.transpose.int or inner.target is not aten.transpose.int:
        return None
    return _input(inner) if _dims(node) == _dims(inner) else None


def _times_one(node: Node) -> Node | None:
    return _input(node) if node.target is aten.mul.Scalar and node.args[1] == 1 else None


def _times_ones(node: Node) -> Node | None:
    if node.target is not aten.mul.Tensor or not isinstance(node.args[1], Node):
        return None
    factor = node.args[1]
    while factor.target in (aten.view.default, aten.expand.default):
        factor = _input(factor)
    return _input(node) if factor.target is aten.ones_like.default and _shape(_input(node)) == _shape(node) else None


def _fold_step(node: Node) -> None:
    """Turn `weight.add_(a @ b, alpha=c)` into one call that adds the product to the weight."""
    if node.target is not aten.add_.Tensor or not isinstance(node.args[1], Node):
        return
    weight, product = _input(node), node.args[1]
    if weight.op != "placeholder" or product.target is not aten.bmm.default or len(product.users) != 1:
        return
    if _shape(weight) != _shape(product):
        return
    node.target = aten.baddbmm_.default
    node.args = (weight, *product.args)


def _input(node: Node) -> Node:
    first = node.args[0] if node.args else None
    return first if isinstance(first, Node) else node


def _shape(node: Node) -> Sequence[int]:
    value: Any = node.meta.get("val")
    return tuple(value.shape) if isinstance(value, torch.Tensor) else ()


def _dims(node: Node) -> set[int]:
    depth = len(_shape(node))
    return {int(dim) % depth for dim in node.args[1:]}  # type: ignore[arg-type]


def _copies(flat: Arrays) -> Arrays:
    # with the same strides: a replay may rely on them
    return [tensor.clone(memory_format=torch.preserve_format) for tensor in flat]


def _distance(left: torch.Tensor, right: torch.Tensor) -> float:
    if not left.dtype.is_floating_point or left.numel() == 0:
        return 0.0 if torch.equal(left, right) else math.inf
    largest = left.abs().nan_to_num().max().item()
    same = (left - right).abs().nan_to_num().max().item()
    return same / largest if largest else same

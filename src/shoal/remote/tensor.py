"""A tensor whose values are at a worker: a subclass of torch.Tensor below autograd, on a device named "remote".

Nothing in torch is patched. Shapes are known here (`shapes.py`), so operators are sent and not waited for; only
`get()`, `item()` and what asks for a number wait.
"""

import weakref
from typing import TYPE_CHECKING, Any, Self, cast

import torch
from msgspec.msgpack import Ext
from torch.utils.backend_registration import _setup_privateuseone_for_python_backend

from shoal.core import html
from shoal.core.errors import NotRecordable, WrongPlace
from shoal.remote import frames, places, recurrent
from shoal.remote.arriving import raw
from shoal.remote.attention import attention
from shoal.remote.operators import Operator, operator_of
from shoal.remote.shapes import Layout, Results, empty, layout_of, results

if TYPE_CHECKING:
    from shoal.remote.worker import Worker

_setup_privateuseone_for_python_backend("remote")

DEVICE = torch.device("remote:0")
"""One device for all workers: the autograd engine has a thread for each device, and asserts on other numbers."""

aten = torch.ops.aten


WHOLE = {**recurrent.WHOLE, aten.scaled_dot_product_attention.default: attention}
"""Operators that torch would take apart here and not on a processor."""


class Ref:
    """A tensor at a worker; freed there when this is gone. (The tensor itself must carry no weak reference: torch
    refuses to swap such tensors, and that is how a module is sent in place.)
    """

    __slots__ = ("__weakref__", "ext", "ident", "worker")

    def __init__(self, worker: "Worker", ident: int | None = None) -> None:
        self.worker = worker
        self.ident = worker.session.new_ident() if ident is None else ident
        self.ext = frames.ref(self.ident)
        weakref.finalize(self, worker.session.gone, self.ident).atexit = False
        if worker.session.recording is not None:
            worker.session.recording.made(self)


class RemoteTensor(torch.Tensor):
    """A tensor at a worker. `shape`, `dtype`, `grad` and `location` need no message."""

    _ref: Ref
    _layout: Layout
    _tags: tuple[str, ...]
    _description: str

    __torch_function__ = torch._C._disabled_torch_function_impl  # type: ignore[assignment]

    @staticmethod
    def __new__(cls: type[Self], ref: Ref, of: Layout, *, requires_grad: bool = False) -> Self:
        """Make the handle of what `ref` stands for."""
        made: Self = torch.Tensor._make_wrapper_subclass(
            cls,
            of.shape,
            strides=of.stride,
            storage_offset=of.offset,
            dtype=of.dtype,
            device=DEVICE,
            requires_grad=requires_grad,
        )
        made._ref = ref
        made._layout = of
        return made

    def __init__(self, *_: Any, **__: Any) -> None:
        pass

    def __repr__(self, *, tensor_contents: Any = None) -> str:  # type: ignore[override]
        del tensor_contents
        return f"RemoteTensor({tuple(self.shape)}, {self.dtype}, at {self.location.name!r})"

    def _repr_html_(self) -> str:
        told = {
            "shape": str(tuple(self.shape)),
            "dtype": str(self.dtype),
            "worker": self.location.name,
            "tags": self.tags,
            "description": self.description,
        }
        return html.facts("remote tensor", told)

    @property
    def location(self) -> "Worker":
        """The worker that has the values."""
        return self._ref.worker

    @property
    def tags(self) -> tuple[str, ...]:
        """What it was tagged with when it was sent."""
        tags: tuple[str, ...] = self.__dict__.get("_tags", ())
        return tags

    @property
    def description(self) -> str:
        """What was said about it when it was sent."""
        description: str = self.__dict__.get("_description", "")
        return description

    def backward(self, *args: Any, **kwargs: Any) -> None:
        """Compute gradients, as torch does, in the thread that asks.

        The autograd engine has its threads from the first backward of the process on: one that was before this device
        was known left none for it, and torch ends on an assertion of its own.
        """
        with torch.autograd.set_multithreading_enabled(False):
            super().backward(*args, **kwargs)  # type: ignore[no-untyped-call]

    def get(self, reason: str | None = None) -> torch.Tensor:
        """Fetch the values. Raises NotPermitted where the owner's policy keeps them; `reason` files a request then."""
        return fetch(self, reason).requires_grad_(self.requires_grad)

    def copy(self) -> "RemoteTensor":
        """Return a copy at the same worker."""
        return cast(RemoteTensor, self.detach().clone().requires_grad_(self.requires_grad))

    def move(self, other: "Worker") -> "RemoteTensor":
        """Take it to another worker; this one's policy must let it leave, the other's take it."""
        moved: RemoteTensor = other.send(self)
        return moved

    def tolist(self) -> Any:
        """Fetch the values as nested lists."""
        return self.get().tolist()

    def numpy(self, *, force: bool = False) -> Any:
        """Fetch the values as a numpy array."""
        return self.get().numpy(force=force)

    def __getitem__(self, index: Any) -> Any:
        with places.at(self.location):  # numbers in a list become a tensor, made where this one is
            return super().__getitem__(index)

    def __setitem__(self, index: Any, value: Any) -> None:
        with places.at(self.location):
            super().__setitem__(index, value)

    def __deepcopy__(self, memo: dict[int, Any]) -> "RemoteTensor":
        copied = self.copy()
        if getattr(self, "_is_param", False):
            copied = torch.nn.Parameter(copied, self.requires_grad)  # type: ignore[assignment]
        memo[id(self)] = copied
        return copied

    def __reduce_ex__(self, protocol: Any) -> Any:
        raise WrongPlace(f"{self!r} cannot be written to a file", "fetch it first: tensor.get() or shoal.get(model)")

    @classmethod
    def __torch_dispatch__(  # type: ignore[override]
        cls, func: Any, types: Any, args: Any = (), kwargs: Any = None
    ) -> Any:
        """Send an operator to the worker."""
        return dispatch(func, args, kwargs or {})


def fetch(of: RemoteTensor, reason: str | None = None) -> torch.Tensor:
    """Return the values of a remote tensor."""
    session = places.noted(of._ref.worker).session
    if session.recording is not None:
        raise NotRecordable(
            f"{session.recording.line()} asks for a value in the middle of a recorded function",
            "return the tensor and ask for its value outside",
        )
    return session.value(of._ref.ident, reason)


# ---- sending an operator


class _Call:
    """The arguments of one operator, in the form that travels, and the key under which its results are known."""

    __slots__ = ("key", "operator", "worker")

    def __init__(self, operator: Operator) -> None:
        self.operator = operator
        self.worker: Worker | None = None
        self.key: list[Any] = [operator.name]

    def encode(self, given: Any) -> Any:
        kind = type(given)
        if kind is RemoteTensor:
            return self._remote(given)
        if given is None or kind is int or kind is bool or kind is str:
            self.key.append((kind, given))
            return given
        if kind is float:
            self.key.append(float)
            return given
        if kind is list or kind is tuple:
            self.key.append(len(given))
            return [self.encode(each) for each in given]
        return self._other(given)

    def _remote(self, given: RemoteTensor) -> Ext:
        ref = given._ref
        if self.worker is None:
            self.worker = ref.worker
        elif self.worker is not ref.worker:
            raise WrongPlace(
                f"{self.operator.name} of a tensor at {self.worker.name!r} and one at {ref.worker.name!r}",
                "bring both to one worker with .move(worker)",
            )
        self.key.append(given._layout.number)
        if ref.worker.session.recording is not None:
            ref.worker.session.recording.read(ref)
        return ref.ext

    def _other(self, given: Any) -> Any:
        self.key.append(given if not isinstance(given, torch.Tensor) else ("scalar", given.dtype))
        match given:
            case torch.dtype():
                return Ext(frames.DTYPE, frames.NAMES[given].encode())
            case torch.memory_format():
                return Ext(frames.FORMAT, _FORMATS[given])
            case torch.device():
                return Ext(frames.DEVICE, b"")
            case torch.layout():
                return Ext(frames.LAYOUT, b"")
            case RemoteTensor():
                return self._remote(given)
            case torch.Tensor():
                return self._local(given)
        raise WrongPlace(
            f"{self.operator.name} with a {type(given).__name__}",
            "a generator is set with worker.manual_seed(); other objects stay here",
        )

    def _local(self, given: torch.Tensor) -> Ext:
        if self.worker is not None and self.worker.session.recording is not None:
            raise NotRecordable(
                f"{self.worker.session.recording.line()}: the local number {given.item()} would be fixed for ever",
                "keep it in a remote tensor",
            )
        if given.dim():
            raise WrongPlace(
                f"{self.operator.name} of a remote tensor and a local one of shape {tuple(given.shape)}",
                "send it first: worker.send(tensor)",
            )
        return Ext(frames.SCALAR, frames.NAMES[given.dtype].encode() + b":" + raw(given))


_FORMATS = {value: name.encode() for name, value in frames.FORMATS.items()}


def dispatch(func: Any, args: Any, kwargs: dict[str, Any]) -> Any:
    """Send an operator to the worker that has its tensors, and return handles of its results."""
    if func is aten._local_scalar_dense.default:
        return fetch(args[0]).item()
    if func is aten._to_copy.default and _leaves(kwargs):
        return aten._to_copy.default(fetch(args[0]), **kwargs)
    if func is aten.copy_.default and not isinstance(args[1], RemoteTensor):  # as `tensor.to("remote")` does
        args = (args[0], wrapped(args[0].location, args[1]), *args[2:])
    if func in _INDEXED:
        args = (args[0], [_index(args[0], each) for each in args[1]], *args[2:])
    whole = WHOLE.get(func)
    if whole is not None:  # in inference mode torch takes nothing apart before
        return whole(*args, **kwargs)
    operator = operator_of(func)
    call = _Call(operator)
    sent = [call.encode(each) for each in args]
    named = {}
    for name, value in kwargs.items():
        if name != "pin_memory":
            call.key.append(name)
            named[name] = call.encode(value)
    worker = places.noted(call.worker) if call.worker is not None else places.current()
    session = worker.session
    if operator.tells_values(args):
        return _wait_for_shape(operator, worker, sent, named)
    found = results(operator, tuple(call.key), args, kwargs, _on_meta)
    if operator.writes and (operator.returns_written or not operator.returns):
        session.step(operator, (), sent, named)
        return _written(operator, args, kwargs)
    return _made(operator, found, worker, sent, named, args)


_INDEXED = (aten.index.Tensor, aten.index_put.default, aten.index_put_.default)


def _index(indexed: Any, by: Any) -> Any:
    """Send local numbers or a mask to the tensor that they index, as torch does for other devices."""
    local = isinstance(by, torch.Tensor) and not isinstance(by, RemoteTensor)
    return wrapped(indexed.location, by) if local and isinstance(indexed, RemoteTensor) else by


def _leaves(kwargs: dict[str, Any]) -> bool:
    device = kwargs.get("device")
    return device is not None and torch.device(device).type != DEVICE.type


def _written(operator: Operator, args: Any, kwargs: dict[str, Any]) -> Any:
    if not operator.returns:
        return None
    outputs = operator.written(args, kwargs)
    return outputs[0] if len(outputs) == 1 else tuple(outputs)


def _made(operator: Operator, found: Results, worker: "Worker", sent: Any, named: Any, args: Any) -> Any:
    made = [None if each is None else RemoteTensor(Ref(worker), each) for each in found.outputs]
    worker.session.step(operator, [0 if each is None else each._ref.ident for each in made], sent, named)
    for place, each in enumerate(made):
        source = operator.views[min(place, len(operator.views) - 1)]
        if source is not None and each is not None and operator.call is not aten.detach.default:
            torch._functionalize_unsafe_set(each, args[source])  # so that autograd sees the same memory
    if not found.many:
        return made[0]
    return made if found.as_list else tuple(made)


def _wait_for_shape(operator: Operator, worker: "Worker", sent: Any, named: Any) -> Any:
    """Run an operator whose result has a shape that depends on values, and ask for that shape."""
    recording = worker.session.recording
    if recording is not None:
        raise NotRecordable(
            f"{recording.line()}: {operator.name}, whose result has a shape that depends on values",
            "use torch.where or a product with a mask",
        )
    refs = [Ref(worker) for _ in range(operator.returns)]
    worker.session.step(operator, [ref.ident for ref in refs], sent, named)
    told = worker.session.ask("layouts", idents=[ref.ident for ref in refs])
    made = [
        RemoteTensor(ref, layout_of(shape, stride, 0, frames.DTYPES[dtype]))
        for ref, (dtype, shape, stride) in zip(refs, told, strict=True)
    ]
    return made[0] if len(made) == 1 else tuple(made)


def _on_meta(given: Any) -> Any:
    if isinstance(given, RemoteTensor):
        return empty(given._layout)
    if isinstance(given, torch.device):
        return torch.device("meta")
    return type(given)(_on_meta(each) for each in given) if isinstance(given, list | tuple) else given


# ---- tensors that come from no other: kernels of the device itself

_kernels: Any = cast(Any, torch.library.Library)("aten", "IMPL")


def _factory(func: Any) -> Any:
    def make(*args: Any, **kwargs: Any) -> Any:
        return dispatch(func, args, {**kwargs, "device": DEVICE})

    return make


_kernels.impl("empty.memory_format", _factory(aten.empty.memory_format), "PrivateUse1")
_kernels.impl("empty_strided", _factory(aten.empty_strided.default), "PrivateUse1")


def _copy_from(source: torch.Tensor, target: torch.Tensor, non_blocking: bool = False) -> torch.Tensor:
    """Copy a local tensor into a remote one, as `tensor.to("remote")` does."""
    del non_blocking
    if not isinstance(target, RemoteTensor):
        raise WrongPlace("a remote tensor copied into a local one", "fetch it: tensor.get()")
    dispatch(aten.copy_.default, (target, source), {})  # torch itself would come back here
    return target


_kernels.impl("_copy_from", _copy_from, "PrivateUse1")

for _operator, _whole in WHOLE.items():
    _kernels.impl(_operator.name().removeprefix("aten::"), _whole, "AutogradPrivateUse1")


def wrapped(worker: "Worker", local: torch.Tensor, *, requires_grad: bool = False) -> RemoteTensor:
    """Send a tensor and return its handle."""
    sent = local.detach().contiguous()
    ref = Ref(places.noted(worker))
    worker.session.put(sent, ref.ident)
    of = layout_of(sent.shape, sent.stride(), 0, sent.dtype)  # there it has memory of its own
    return RemoteTensor(ref, of, requires_grad=requires_grad)

"""Recording what a function does to tensors: every operator below autograd, in order, with what it takes and gives."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, TypeAlias

import torch

from shoal.core.errors import NotExportable
from shoal.plan.private import DispatchMode, by_tensor

TRUSTED = (
    "compute it with torch.where, or publish without a plan for owners who install the code: plan=False, or --no-plan"
)

Flat: TypeAlias = Callable[..., list[torch.Tensor]]
Place: TypeAlias = Callable[[], str]


@dataclass(frozen=True, slots=True, eq=False)
class Made:
    """One array of a recording."""

    shape: tuple[int, ...]
    dtype: torch.dtype
    computed: bool
    """Whether its numbers depend on what the function was given."""


@dataclass(frozen=True, slots=True, eq=False)
class Call:
    """One operator; `args` and `kwargs` hold `Made`s where it was given arrays. `where` says who called it."""

    target: Any
    args: tuple[Any, ...]
    kwargs: Mapping[str, Any]
    results: tuple[Made | None, ...]
    several: bool
    where: str


@dataclass(slots=True, eq=False)
class Recording:
    """What a function took, did and gave. `constants` are arrays that it was not given and did not compute."""

    inputs: list[Made] = field(default_factory=list[Made])
    calls: list[Call] = field(default_factory=list[Call])
    outputs: list[Made] = field(default_factory=list[Made])
    constants: dict[Made, torch.Tensor] = field(default_factory=dict[Made, torch.Tensor])


def recorded(function: Flat, given: Sequence[torch.Tensor], where: Place) -> Recording:
    """Return what a function does to tensors. `where` tells, at each operator, who calls it.

    Raises NotExportable when the function takes a number out of an array, to decide by it.
    """
    recorder = _Recorder(where)
    recorder.take(given)
    with recorder:
        found = function(*given)
    return recorder.give(found)


def decomposed(
    recording: Recording, given: Sequence[torch.Tensor], table: Mapping[Any, Callable[..., Any]]
) -> Recording:
    """Return the same recording without operators that change an array in place, and in terms of fewer operators."""
    replay = _Replay(recording)
    recorder = _Recorder(lambda: replay.where, table)
    recorder.take(given)
    with torch.no_grad(), recorder:
        found = torch.func.functionalize(replay, remove="mutations_and_views")(*given)
    return recorder.give(found)


class _Recorder(DispatchMode):
    def __init__(self, where: Place, table: Mapping[Any, Callable[..., Any]] | None = None) -> None:
        super().__init__()
        self._where = where
        self._table = table
        self._known = by_tensor()
        self._recording = Recording()

    def take(self, given: Sequence[torch.Tensor]) -> None:
        """Let these tensors be the inputs."""
        self._recording.inputs = [self._make(tensor, computed=True) for tensor in given]

    def give(self, found: Sequence[torch.Tensor]) -> Recording:
        """Return the recording, these tensors being its outputs."""
        self._recording.outputs = [self._made(tensor) for tensor in found]
        return self._recording

    def __torch_dispatch__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: Mapping[str, Any] | None = None
    ) -> Any:
        kwargs = kwargs or {}
        if self._table is not None:
            apart = self._table.get(func)
            with self:
                found = apart(*args, **kwargs) if apart is not None else func.decompose(*args, **kwargs)
            if found is not NotImplemented:
                return found
        taken, named = self._mapped(args), {name: self._mapped(value) for name, value in kwargs.items()}
        computed = any(made.computed for made in arrays([taken, *named.values()]))
        if computed and torch.Tag.data_dependent_output in func.tags:
            raise NotExportable(
                f"operator {func} {self._where()} takes a number out of an array, to decide by it", TRUSTED
            )
        found = func(*args, **kwargs)
        several = isinstance(found, tuple | list)
        results = tuple(
            self._make(one, computed=computed) if isinstance(one, torch.Tensor) else None
            for one in (found if several else (found,))
        )
        if any(result is not None for result in results):
            self._recording.calls.append(Call(func, taken, named, results, several, self._where()))
        return found

    def _make(self, tensor: torch.Tensor, *, computed: bool) -> Made:
        made = Made(tuple(tensor.shape), tensor.dtype, computed)
        self._known[tensor] = made
        return made

    def _made(self, tensor: torch.Tensor) -> Made:
        known: Made | None = self._known.get(tensor)
        if known is not None:
            return known
        made = self._make(tensor, computed=False)
        # what is changed in place later begins as it is now
        self._recording.constants[made] = tensor.detach().clone()
        return made

    def _mapped(self, value: Any) -> Any:
        if isinstance(value, torch.Tensor):
            return self._made(value)
        if isinstance(value, list | tuple):
            return type(value)(self._mapped(one) for one in value) if type(value) in (list, tuple) else value
        return value


class _Replay:
    """A recording as a function again; `where` says which of its calls is being replayed."""

    def __init__(self, recording: Recording) -> None:
        self._recording = recording
        self.where = ""

    def __call__(self, *given: torch.Tensor) -> list[torch.Tensor]:
        recording = self._recording
        values: dict[Made, Any] = {**dict(zip(recording.inputs, given, strict=True)), **recording.constants}
        for call in recording.calls:
            self.where = call.where
            kwargs = {name: _valued(value, values) for name, value in call.kwargs.items()}
            try:
                found = call.target(*_valued(call.args, values), **kwargs)
            except NotExportable as error:
                raise NotExportable(f"{error.problem} {call.where}", error.fix) from error
            values.update(zip(call.results, found if call.several else (found,), strict=True))  # type: ignore[arg-type]
        return [values[made] for made in recording.outputs]


def arrays(value: Any) -> list[Made]:
    """Return the arrays within arguments."""
    if isinstance(value, Made):
        return [value]
    if isinstance(value, list | tuple):
        return [made for one in value for made in arrays(one)]
    return []


def _valued(value: Any, values: Mapping[Made, Any]) -> Any:
    if isinstance(value, Made):
        return values[value]
    if isinstance(value, list | tuple) and type(value) in (list, tuple):
        return type(value)(_valued(one, values) for one in value)
    return value

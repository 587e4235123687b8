"""A recorded program at the worker: the operators of one call in a row, over a table of values.

Values are found by place: the inputs first, then what lives outside (parameters, the optimizer's state, constants),
then each result. A value is dropped after its last use. `text` is the program as its owner reads it; its SHA-256 is
the digest that an approval names.
"""

import hashlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import partial
from operator import itemgetter
from typing import Any, TypeAlias

import torch
from msgspec.msgpack import Ext

from shoal.core.errors import BadRequest, NotRecordable
from shoal.remote import frames
from shoal.remote.arguments import check_places, constant, ident_of
from shoal.remote.failures import Failure
from shoal.remote.labels import Label
from shoal.remote.objects import Held, Objects
from shoal.remote.operators import Operator
from shoal.remote.provenance import Run
from shoal.remote.shapes import empty, layout
from shoal.train.startup import light_calls

Values = list[Any]
Form: TypeAlias = tuple[torch.Size, tuple[int, ...], torch.dtype]

PURE_VIEWS = frozenset(
    f"aten.{name}"
    for name in ("detach.default", "alias.default", "t.default", "transpose.int", "permute.default", "view.default")
)
"""Operators that never copy; a view that looks as another one does is not made again."""
RELAID = ("aten.t_.", "aten.transpose_.", "aten.squeeze_.", "aten.unsqueeze_.", "aten.swapaxes_.", "aten.as_strided_.")
"""Operators that change the layout of a tensor in place."""


@dataclass(slots=True)
class Instruction:
    """One operator on its arguments in the table, where its results go, what is over after it."""

    call: Callable[[Values], Any]
    places: tuple[int, ...]
    several: bool
    over: tuple[int, ...] = ()


@dataclass(slots=True)
class Program:
    """What a client recorded, ready to run."""

    text: str
    forms: tuple[Form, ...]
    """Shape, strides and dtype of each input: what is a view and what a copy was found out for these alone."""
    table: Values
    instructions: list[Instruction]
    results: tuple[int, ...]
    kept: tuple[int, ...]
    """Handles that stand for the latest run's tensors."""
    outside: list[Held]
    changed: list[Held]
    """Those of `outside` that a run writes."""
    states: tuple[bool, ...]
    """Which of `changed` it writes before it reads them: gradients, moments, running statistics, and no weights."""
    changed_inputs: tuple[int, ...]
    written: tuple[int, ...]
    """The handles of `changed`."""
    operators: list[Operator]
    nbytes: int = 0
    digest: str = field(init=False)
    broken: Failure | None = None
    permitted: Label | None = None

    def __post_init__(self) -> None:
        self.digest = hashlib.sha256(self.text.encode()).hexdigest()

    @property
    def random(self) -> bool:
        """Whether it draws random numbers."""
        return any(operator.random for operator in self.operators)

    def run(self, inputs: Sequence[torch.Tensor]) -> list[Any]:
        """Return the results of one call, then what is kept. Raises BadRequest for inputs of another layout."""
        if tuple(_form(each) for each in inputs) != self.forms:
            raise BadRequest(
                f"inputs {', '.join(map(_said, inputs))} for a program that was recorded with others",
                "record it again for these shapes, strides and dtypes",
            )
        values = [*inputs, *self.table]
        for step in self.instructions:
            made = step.call(values)
            if step.several:
                for place, value in zip(step.places, made, strict=True):
                    values[place] = value
            elif step.places:
                values[step.places[0]] = made
            for place in step.over:
                values[place] = None
        return [values[place] for place in self.results]

    def mark(
        self, label: Label, inputs: Sequence[Held], run: Run | None, starts: Sequence[torch.Tensor | None]
    ) -> None:
        """Give all that a run wrote the label of all that it read, and its provenance."""
        for place, (held, start) in enumerate(zip(self.changed, starts, strict=True)):
            lineage = held.storage.lineage
            held.storage.written(label)
            if run is not None and run.training:
                held.storage.lineage = lineage
                run.trained(held, start, place, state=self.states[place])
        for at in self.changed_inputs:
            inputs[at].storage.written(label)


def build(asked: frames.Define, operators: Sequence[Operator | Failure], objects: Objects) -> Program:
    """Return the program of a definition. Raises BadRequest for a malformed one, Poisoned for a failed input."""
    building = _Building(asked, objects)
    used = {operators[step[0]] for step in asked.steps}
    if any(isinstance(each, Operator) and each.name.startswith(RELAID) for each in used):
        building.keep_views_apart()
    with light_calls():
        for step in asked.steps:
            operator = operators[step[0]]
            if isinstance(operator, Failure):
                raise operator.error()
            building.add(operator, step)
    return building.program()


class _Building:
    """The table of values as it grows: each argument, and each result, gets the next place."""

    def __init__(self, asked: frames.Define, objects: Objects) -> None:
        self._asked = asked
        self._objects = objects
        self._given = [objects.find(ident) for ident in asked.inputs]
        self._places = {ident: place for place, ident in enumerate(asked.inputs)}
        self._names = [f"input{place}" for place in range(len(asked.inputs))]
        self._roots = list(range(len(asked.inputs)))
        """Whose storage a value lies in: its own place unless it is a view."""
        self._metas: Values = [empty(layout(held.tensor)) for held in self._given]
        self._memory = {_memory(meta): place for place, meta in enumerate(self._metas)}
        """Whose storage each memory is, as the meta device tells it: not every operator declares its views."""
        self._lists: dict[int, tuple[int, ...]] = {}
        self._taken = 0
        self._table: Values = []
        self._outside: dict[int, Held] = {}
        self._fleeting: set[int] = set()
        self._written: set[int] = set()
        self._read: set[int] = set()
        """What an operator other than a view has read so far."""
        self._states: set[int] = set()
        self._operators: list[Operator] = []
        self._steps: list[Instruction] = []
        self._reads: list[tuple[int, ...]] = []
        self._lines: list[str] = []
        self._views: dict[tuple[Any, ...], int] | None = {}
        """Places by storage and layout, so that no view is made twice; None where views may change their layout."""

    def keep_views_apart(self) -> None:
        """Make every view anew, since one may change its layout."""
        self._views = None

    def add(self, operator: Operator, step: list[Any]) -> None:
        """Take up one step."""
        check_places(operator, step)
        args = [self._argument(each) for each in step[2]]
        kwargs = {name: self._argument(each) for name, each in step[3].items()} if len(step) > 3 else {}
        self._operators.append(operator)
        self._touch(operator, args, kwargs)
        if operator.tells_values([self._metas[place] for place in args]):
            raise NotRecordable(
                f"{operator.name}, whose result has a shape that depends on values",
                "use torch.where, or do not record it",
            )
        if operator.name.startswith(RELAID) and args[0] not in self._fleeting:
            raise NotRecordable(f"{operator.name} of a tensor from outside", "use the form that makes a view")
        foreseen = any(step[1]) or bool(operator.out) or operator.name.startswith(RELAID)
        metas = self._foresee(operator, args, kwargs) if foreseen else []
        if not any(step[1]):
            metas = [None] * len(step[1])
        if operator.name in PURE_VIEWS and len(metas) == 1 and self._is_there(args[0], step[1][0], metas[0]):
            return
        places = tuple(
            self._result(operator, at, ident, args, meta)
            for at, (ident, meta) in enumerate(zip(step[1], metas, strict=True))
        )
        if operator.name in PURE_VIEWS and self._views is not None:
            self._views[self._looks(places[0])] = places[0]
        call = getattr(operator.call, "_op", operator.call)  # an overload's own call is a function around this
        fixed = {name: self._table[place - len(self._given)] for name, place in kwargs.items() if self._fixed(place)}
        free = {name: place for name, place in kwargs.items() if name not in fixed}
        call = partial(call, **fixed) if fixed else call
        call = partial(_named, call, tuple(free)) if free else call
        self._instruct(call, (*args, *free.values()), places, bool(places) and _several(operator))
        named = [f"{name}={self._names[place]}" for name, place in kwargs.items()]
        said = f"{operator.name}({', '.join([*(self._names[place] for place in args), *named])})"
        self._lines.append(f"{', '.join(self._names[place] for place in places)} = {said}" if places else said)

    def _touch(self, operator: Operator, args: list[int], kwargs: dict[str, int]) -> None:
        written = {self._roots[place] for place in self._writes(operator, args, kwargs)}
        self._states |= written - self._read
        self._written |= written
        if operator.returns_written or all(source is None for source in operator.views):
            given = [each for place in (*args, *kwargs.values()) for each in self._lists.get(place, (place,))]
            self._read |= {self._roots[place] for place in given}

    def _instruct(
        self, call: Callable[..., Any], read: tuple[int, ...], places: tuple[int, ...], several: bool
    ) -> None:
        self._steps.append(Instruction(_from_table(call, read), places, several))
        self._reads.append(read)

    def _fixed(self, place: int) -> bool:
        return place >= len(self._given) and place not in self._fleeting

    def _looks(self, place: int) -> tuple[Any, ...]:
        meta = self._metas[place]
        return _memory(meta), meta.shape, meta.stride(), meta.storage_offset(), meta.dtype

    def _is_there(self, source: int, ident: int, meta: Any) -> bool:
        """Whether a view looks at the same memory in the same way as a value that is there; it then stands for it."""
        if self._views is None:
            return False
        self._views.setdefault(self._looks(source), source)
        key = (_memory(meta), meta.shape, meta.stride(), meta.storage_offset(), meta.dtype)
        found = self._views.get(key)
        if found is not None:
            self._places[ident] = found
        return found is not None

    def _result_of(self, ident: int, others: Sequence[int]) -> int:
        """Return the place of a result, which is an object of its own, so that nobody changes the layout of another."""
        place = self._tensor(ident)
        if place in self._fleeting and place not in others:
            return place
        own = self._new(None, self._names[place], self._metas[place])
        self._fleeting.add(own)
        self._instruct(torch.ops.aten.detach.default, (place,), (own,), False)
        return own

    def _argument(self, given: Any) -> int:
        if isinstance(given, list) and any(isinstance(each, Ext) for each in given):
            places = tuple(self._argument(each) for each in given)
            name = f"[{', '.join(self._names[place] for place in places)}]"
            gathered = self._new(None, name, [self._metas[place] for place in places])
            self._fleeting.add(gathered)
            self._lists[gathered] = places
            self._instruct(_gathered, places, (gathered,), False)
            return gathered
        if _is_ref(given):
            return self._tensor(ident_of(given))
        if isinstance(given, Ext):
            value = constant(given)
            return self._new(value, _exactly(value), torch.device("meta") if isinstance(value, torch.device) else value)
        if isinstance(given, list):
            return self._new(given, str(given), given)
        return self._new(given, repr(given), given)

    def _tensor(self, ident: int) -> int:
        place = self._places.get(ident)
        if place is None:
            held = self._outside[ident] = self._objects.find(ident)
            kind = f"{str(held.tensor.dtype).removeprefix('torch.')}{list(held.tensor.shape)}"
            name = f"outside{len(self._outside) - 1}:{kind}"
            own = held.tensor.detach()  # so that nobody changes its layout
            place = self._places[ident] = self._new(own, name, empty(layout(own)))
            self._memory[_memory(self._metas[place])] = place
        return place

    def _result(self, operator: Operator, at: int, ident: int, args: list[int], meta: Any) -> int:
        place = self._new(None, f"r{len(self._fleeting)}", meta)
        self._fleeting.add(place)
        if ident:
            self._places[ident] = place
        source = operator.views[min(at, len(operator.views) - 1)]
        if source is not None and source < len(args):
            self._roots[place] = self._roots[args[source]]
        if isinstance(meta, torch.Tensor):
            self._roots[place] = self._memory.setdefault(_memory(meta), self._roots[place])
        return place

    def _foresee(self, operator: Operator, args: list[int], kwargs: dict[str, int]) -> list[Any]:
        """Return the results on the meta device, and count what they will take."""
        named = {name: self._metas[place] for name, place in kwargs.items()}
        before = [named[name].shape for name in operator.out]
        made = operator.call(*(self._metas[place] for place in args), **named)
        if before != [named[name].shape for name in operator.out]:
            raise BadRequest(f"{operator.name} into a tensor of another shape", "write into one that fits")
        outputs = list(made) if isinstance(made, list | tuple) else [made]
        if all(source is None for source in operator.views):
            self._taken += sum(each.nbytes for each in outputs if isinstance(each, torch.Tensor))
        return outputs

    def _new(self, value: Any, name: str, meta: Any) -> int:
        place = len(self._names)
        self._metas.append(meta)
        self._names.append(name)
        self._roots.append(place)
        self._table.append(value)
        return place

    def _writes(self, operator: Operator, args: list[int], kwargs: dict[str, int]) -> list[int]:
        places = [args[at] if at < len(args) else kwargs.get(name) for at, name in operator.writes]
        return [each for place in places if place is not None for each in self._lists.get(place, (place,))]

    def program(self) -> Program:
        """Return what was built."""
        results: list[int] = []
        for ident in (*self._asked.outputs, *self._asked.kept):
            results.append(self._result_of(ident, results))
        self._drop(set(results))
        changed = {ident: held for ident, held in self._outside.items() if self._places[ident] in self._written}
        return Program(
            "\n".join([*self._lines, "return " + ", ".join(self._names[place] for place in results)]),
            tuple(_form(held.tensor) for held in self._given),
            self._table,
            self._steps,
            tuple(results),
            tuple(self._asked.kept),
            list(self._outside.values()),
            list(changed.values()),
            tuple(self._places[ident] in self._states for ident in changed),
            tuple(at for at in range(len(self._given)) if at in self._written),
            tuple(changed),
            list(dict.fromkeys(self._operators)),
            self._taken,
        )

    def _drop(self, results: set[int]) -> None:
        last = {place: at for at, read in enumerate(self._reads) for place in read}
        last |= {place: max(last.get(place, at), at) for at, step in enumerate(self._steps) for place in step.places}
        over: dict[int, list[int]] = {}
        for place, at in last.items():
            if place in self._fleeting and place not in results:
                over.setdefault(at, []).append(place)
        for at, places in over.items():
            self._steps[at].over = tuple(places)


def _form(tensor: torch.Tensor) -> Form:
    return tensor.shape, tensor.stride(), tensor.dtype


def _said(tensor: torch.Tensor) -> str:
    return f"{str(tensor.dtype).removeprefix('torch.')}{list(tensor.shape)}"


def _exactly(value: Any) -> str:
    """Return a constant as text; a number with all its digits, since the text is what is approved."""
    return f"{_said(value)} {value.item()!r}" if isinstance(value, torch.Tensor) else str(value)


def _memory(meta: torch.Tensor) -> int:
    return int(meta.untyped_storage()._cdata)


def _is_ref(given: Any) -> bool:
    return isinstance(given, Ext) and given.code == frames.REF


def _several(operator: Operator) -> bool:
    return operator.returns > 1 or "List" in str(operator.call._schema.returns[0].type)


def _from_table(call: Callable[..., Any], read: tuple[int, ...]) -> Callable[[Values], Any]:
    """Return a call with its arguments at these places; most have few, and then nothing is gathered first."""
    match read:
        case ():
            return lambda _: call()
        case (first,):
            return lambda values: call(values[first])
        case (first, second):
            return lambda values: call(values[first], values[second])
        case (first, second, third):
            return lambda values: call(values[first], values[second], values[third])
    gathered = itemgetter(*read)
    return lambda values: call(*gathered(values))


def _gathered(*each: Any) -> list[Any]:
    return list(each)


def _named(call: Callable[..., Any], names: tuple[str, ...], *given: Any) -> Any:
    cut = len(given) - len(names)
    return call(*given[:cut], **dict(zip(names, given[cut:], strict=True)))

"""Recording a function once, so that each later call is one small message.

The first calls run as they are while their operators are noted; when two in a row did the same, the worker builds the
program (`program.py`) and runs it by number. A first call that differs because it made an optimizer's state is
followed by two that agree. What a program cannot do is refused on the spot, with the line.
"""

import gc
import linecache
import sys
import weakref
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from typing import Any

from msgspec.msgpack import Ext

from shoal.core.errors import NotRecordable
from shoal.remote import frames
from shoal.remote.arguments import ident_of
from shoal.remote.optimizers import Settings
from shoal.remote.places import recorded_at
from shoal.remote.session import Session
from shoal.remote.shapes import Layout
from shoal.remote.tensor import Ref, RemoteTensor

ATTEMPTS = 3
"""Calls after which two in a row must have been the same."""
RUNS = 4096
"""Runs that one message may ask for."""

_NOT_THEIRS = ("/torch/", "/shoal/remote/", "importlib")


@dataclass(slots=True)
class Trace:
    """What one call did."""

    inputs: list[int]
    steps: list[list[Any]] = field(default_factory=list)
    lines: list[str] = field(default_factory=list)
    refs: list["weakref.ref[Ref]"] = field(default_factory=list)
    """Of the tensors that it made."""
    outside: dict[int, "weakref.ref[Ref]"] = field(default_factory=dict)
    settings: list[Settings] = field(default_factory=list)
    optimizing: bool = False
    """Whether an optimizer is at work, which may send the beginning of its state: a later call will not."""

    def note(self, step: list[Any]) -> None:
        """Keep one step."""
        self.steps.append(step)
        self.lines.append(self.line())

    def made(self, ref: Ref) -> None:
        """Keep who holds a tensor that was made."""
        self.refs.append(weakref.ref(ref))

    def read(self, ref: Ref) -> None:
        """Keep who holds a tensor that was read."""
        self.outside.setdefault(ref.ident, weakref.ref(ref))

    def line(self) -> str:
        """Return the user's line that is being carried out."""
        frame = sys._getframe(1)
        while frame is not None:
            file = frame.f_code.co_filename
            if not any(part in file for part in _NOT_THEIRS):
                text = linecache.getline(file, frame.f_lineno).strip()
                return f"{file.rpartition('/')[2]} line {frame.f_lineno} ({text})"
            if frame.f_back is None:
                break
            frame = frame.f_back
        return "backward()"

    def alive(self) -> set[int]:
        """Return the tensors made here that somebody still holds."""
        return {ref.ident for each in self.refs if (ref := each()) is not None}

    def canonical(self) -> list[Any]:
        """Return the steps with handles by their role, so that two traces can be compared."""
        roles: dict[int, Any] = {ident: ("input", at) for at, ident in enumerate(self.inputs)}
        steps = []
        for step in self.steps:
            said = [step[0], [_by_role(each, roles) for each in step[2]]]
            if len(step) > 3:
                said.append({name: _by_role(each, roles) for name, each in step[3].items()})
            for ident in step[1]:
                roles[ident] = ("made", len(roles))
            steps.append(said)
        return steps


def _by_role(given: Any, roles: dict[int, Any]) -> Any:
    if isinstance(given, Ext):
        if given.code != frames.REF:
            return (given.code, given.data)
        ident = ident_of(given)
        return roles.get(ident, ("outside", ident))
    return [_by_role(each, roles) for each in given] if isinstance(given, list) else given


@dataclass(slots=True)
class _Ready:
    """A program at the worker."""

    session: Session
    ref: int
    outputs: list[Layout]
    single: bool
    outside: list["weakref.ref[Ref]"]
    settings: list[Settings]
    offsets: tuple[int, ...] | None
    """Where its inputs began in their memory, if it looks beyond them by numbers that were fixed."""

    def takes(self, inputs: Sequence[RemoteTensor]) -> bool:
        """Whether it can run on these."""
        return self.offsets is None or self.offsets == _offsets(inputs)

    def usable(self) -> bool:
        """Whether all that it was recorded with is still there and as it was."""
        return all(each() is not None for each in self.outside) and all(each.same() for each in self.settings)


@dataclass(slots=True)
class _Attempts:
    """Calls so far with inputs of one layout."""

    trace: Trace | None = None
    count: int = 0
    ready: _Ready | None = None


class Recorded:
    """A function of remote tensors whose calls become one small message each."""

    def __init__(self, function: Callable[..., Any]) -> None:
        self._function = function
        self._attempts: dict[tuple[Any, ...], _Attempts] = {}

    def __call__(self, *inputs: RemoteTensor) -> Any:
        """Run the function, recorded or, in its first calls, as it is. Results carry no graph."""
        attempts = self._attempts_for(inputs)
        if attempts.ready is None or not attempts.ready.usable():
            return self._eagerly(attempts, inputs)
        if not attempts.ready.takes(inputs):
            return _without_graph(self._function(*inputs))
        return self._run(attempts.ready, [inputs])[0]

    def repeat(self, batches: Iterable[Sequence[RemoteTensor]]) -> list[Any]:
        """Call it for each batch in turn, with one message for many; return the results."""
        results: list[Any] = []
        pending: list[Sequence[RemoteTensor]] = []
        current: _Ready | None = None
        for batch in batches:
            attempts = self._attempts_for(batch)
            ready = attempts.ready
            if ready is not None and not (ready.usable() and ready.takes(batch)):
                ready = None
            if pending and (ready is not current or len(pending) >= RUNS):
                results += self._run(current, pending)
                pending = []
            current = ready
            if ready is None:
                results.append(self(*batch))
            else:
                pending.append(batch)
        return results + (self._run(current, pending) if pending else [])

    def _attempts_for(self, inputs: Sequence[Any]) -> _Attempts:
        for each in inputs:
            if type(each) is not RemoteTensor:
                raise NotRecordable(
                    f"an argument of type {type(each).__name__}",
                    "give remote tensors only; send what changes, name what does not in the function itself",
                )
        if not inputs:
            raise NotRecordable("a call without arguments", "give the remote tensors that change from call to call")
        key = (inputs[0]._ref.worker, *(each._layout.form for each in inputs))
        found = self._attempts.get(key)
        if found is None:
            found = self._attempts[key] = _Attempts()
        return found

    # ---- while it is recorded

    def _eagerly(self, attempts: _Attempts, inputs: Sequence[RemoteTensor]) -> Any:
        session = inputs[0]._ref.worker.session
        if attempts.ready is not None:
            session.gone(attempts.ready.ref)
            attempts.ready, attempts.trace, attempts.count = None, None, 0
        trace, result = self._traced(session, inputs)
        attempts.count += 1
        before, attempts.trace = attempts.trace, trace
        difference = None if before is None else _difference(before, trace)
        if before is not None and difference is None:
            attempts.ready = _defined(session, trace, inputs, result)
        elif attempts.count >= ATTEMPTS:
            attempts.count = 0
            raise NotRecordable(
                f"two calls in a row differ at {difference}",
                "keep what changes in remote tensors, or do not record it",
            )
        return result

    def _traced(self, session: Session, inputs: Sequence[RemoteTensor]) -> tuple[Trace, Any]:
        if session.recording is not None:
            raise NotRecordable("a recorded function inside another", "record the outer one only")
        trace = session.recording = Trace([each._ref.ident for each in inputs])
        try:
            with recorded_at(inputs[0]._ref.worker):
                result = _without_graph(self._function(*inputs))
        finally:
            session.recording = None
        gc.collect()  # what only a cycle holds is not held
        return trace, result

    # ---- when it is

    def _run(self, ready: "_Ready | None", batches: Sequence[Sequence[RemoteTensor]]) -> list[Any]:
        assert ready is not None
        outputs = ready.outputs
        inputs = [[each._ref.ident for each in batch] for batch in batches]
        worker = batches[0][0]._ref.worker
        results = [[RemoteTensor(Ref(worker), layout) for layout in outputs] for _ in inputs]
        made = [[each._ref.ident for each in result] for result in results]
        ready.session.run(ready.ref, inputs, made)
        if not outputs:
            return [None] * len(inputs)
        return [result[0] for result in results] if ready.single else [tuple(result) for result in results]


def record(function: Callable[..., Any]) -> Recorded:
    """Return a function that is recorded in its first calls and then runs at the worker with one message a call.

    Its arguments are remote tensors; it returns a remote tensor, several, or nothing. Raises NotRecordable, naming the
    line, where the function asks for a value, depends on one, or does other things from call to call.
    """
    return Recorded(function)


def _difference(before: Trace, after: Trace) -> str | None:
    """Return where two calls part, or None."""
    left, right = before.canonical(), after.canonical()
    for one, other, line in zip(left, right, after.lines, strict=False):
        if one != other:
            return line
    if len(left) == len(right):
        return None
    longer = before if len(left) > len(right) else after
    return longer.lines[min(len(left), len(right))]


def _without_graph(result: Any) -> Any:
    match result:
        case None:
            return None
        case RemoteTensor():
            return result.detach()
        case tuple() | list() if all(isinstance(each, RemoteTensor) for each in result):
            return tuple(each.detach() for each in result)
    raise NotRecordable(f"a result of type {type(result).__name__}", "return a remote tensor, several, or nothing")


def _offsets(inputs: Sequence[RemoteTensor]) -> tuple[int, ...]:
    return tuple(each._layout.offset for each in inputs)


def _defined(session: Session, trace: Trace, inputs: Sequence[RemoteTensor], result: Any) -> _Ready:
    outputs: list[RemoteTensor] = (
        [] if result is None else [result] if isinstance(result, RemoteTensor) else list(result)
    )
    returned = [each._ref.ident for each in outputs]
    kept = sorted(trace.alive() - set(returned))
    program = session.new_ident()
    session.define(program, trace.steps, trace.inputs, returned, kept)
    made = {ident for step in trace.steps for ident in step[1]}
    used = [ref for ident, ref in trace.outside.items() if ident not in made and ident not in trace.inputs]
    layouts = [each._layout for each in outputs]
    offsets = _offsets(inputs) if session.uses("aten.as_strided", trace.steps) else None
    return _Ready(session, program, layouts, isinstance(result, RemoteTensor), used, trace.settings, offsets)

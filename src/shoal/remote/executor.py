"""Running operators at the worker, one after the other.

Every operator passes `_allowed_on`: there the labels of its inputs are joined and the owner's gate is asked. What
fails poisons what it would have made; the client hears of it when it asks for a result.
"""

from typing import Any

import torch

from shoal.core.errors import BadRequest, NotPermitted, OverLimit, RefusedOperator, ShoalError
from shoal.remote import failures, frames, provenance
from shoal.remote.arguments import Reader, ident_of, tensor
from shoal.remote.failures import KERNEL_ERRORS, Failure
from shoal.remote.labels import OWN, Gate, Label, join
from shoal.remote.limits import Limits
from shoal.remote.objects import Held, Objects, Poisoned
from shoal.remote.operators import Operator, operator_named
from shoal.remote.program import Program, build
from shoal.remote.provenance import Source
from shoal.remote.randomness import Randomness
from shoal.remote.shapes import Layout, empty, layout, results


class Misfit(Exception):
    """Arguments whose shapes and dtypes do not go together, whatever their values are."""

    def __init__(self, cause: Exception) -> None:
        super().__init__(cause)
        self.cause = cause


_REFUSALS = (NotPermitted, OverLimit, RefusedOperator)


class Executor:
    """One client's tensors, and the operators that it asks for."""

    def __init__(self, gate: Gate, limits: Limits) -> None:
        self.objects = Objects(limits)
        self.randomness = Randomness()
        self._gate = gate
        self._limits = limits
        self._operators: list[Operator | Failure] = []
        self._programs: dict[int, Program] = {}
        self._reader = Reader(self.objects)

    def learn(self, names: list[str]) -> None:
        """Take up operators under the next numbers; one that is not allowed fails where it is used."""
        for name in names:
            try:
                self._operators.append(operator_named(name))
            except RefusedOperator as error:
                self._operators.append(failures.of(error))

    def run(self, step: list[Any]) -> None:
        """Carry out one step of a batch. Raises BadRequest for what is none."""
        try:
            what = step[0]
            if what >= 0:
                self._run(self._operators[what], step)
            elif what == frames.RUN:
                self._repeat(self._programs[step[1]], step[2], step[3])
            elif what == frames.PUT:
                self._brought(step[1], tensor(step[2], step[3], step[4]))
            elif what == frames.SEED:
                self.randomness.seed(step[1])
            else:
                raise BadRequest(f"a step {what}", "use the same version on both sides")
        except (
            KeyError,
            IndexError,
            TypeError,
            AttributeError,
            ValueError,
        ) as error:  # not what a client of ours sends
            raise BadRequest("a step of a form that is not known", "use the same version on both sides") from error

    def _brought(self, ident: int, sent: torch.Tensor) -> None:
        try:
            self._gate.accept(sent.nbytes)
        except NotPermitted as error:
            self.objects.poison(ident, failures.of(error))
        else:
            self.put(ident, sent)

    def put(self, ident: int, sent: torch.Tensor, label: Label = OWN, source: Source | None = None) -> None:
        """Keep a tensor that came from outside."""
        try:
            self.objects.reserve(sent.nbytes)
        except OverLimit as error:
            self.objects.poison(ident, failures.of(error))
        else:
            self.objects.keep(ident, sent, label, source=source)

    def _run(self, operator: Operator | Failure, step: list[Any]) -> None:
        if isinstance(operator, Failure):
            return self._fail(operator, step)
        label = OWN
        try:
            args, kwargs = self._reader.call(operator, step)
            label = self._allowed_on(operator, args, self._reader.held)
            self.objects.reserve(_new_bytes(operator, args, kwargs, always=label.private))
            made = self._call(operator, args, kwargs)
        except Poisoned as error:
            self._fail(error.failure, step)
        except _REFUSALS as error:
            self._fail(failures.of(error), step)
        except BadRequest:
            raise
        except Misfit as error:  # found without a look at values, so it may be told
            traced = self._gate.traceback(label)
            self._fail(failures.kernel(operator.name, error.cause, described=True, traced=traced), step)
        except KERNEL_ERRORS as error:
            self._fail(self._failed(operator.name, error, label), step)
        else:
            if operator.writes:
                self._mark(operator, args, kwargs, label)
            self._keep(step[1], made, label, self._taken(operator, args) if label.private else None)

    def _taken(self, operator: Operator, args: list[Any]) -> Source | None:
        private = [held for held in self._reader.held if held.storage.label.private]
        return provenance.taken(operator.name, args, {id(held.tensor): held.storage.source for held in private})

    def _allowed_on(self, operator: Operator, args: list[Any], held: list[Held]) -> Label:
        label = join(each.storage.label for each in held)
        self._gate.operate(operator, label, tells_values=operator.tells_values(args))
        return label

    def _call(self, operator: Operator, args: list[Any], kwargs: dict[str, Any]) -> Any:
        if not operator.random:
            return operator.call(*args, **kwargs)
        with self.randomness.drawing():
            return operator.call(*args, **kwargs)

    def _mark(self, operator: Operator, args: list[Any], kwargs: dict[str, Any], label: Label) -> None:
        """Give what was written the label of all that was read."""
        written = {id(each) for each in _tensors(operator.written(args, kwargs))}
        for held in self._reader.held:
            if id(held.tensor) in written:
                held.storage.written(label)
                if operator.out:
                    self.objects.count_again(held)

    def _keep(self, idents: list[int], made: Any, label: Label, source: Source | None) -> None:
        outputs = made if isinstance(made, list | tuple) else (made,)
        for ident, output in zip(idents, outputs, strict=False):
            if ident and isinstance(output, torch.Tensor):
                self.objects.keep(ident, output, label, source=source)

    def _failed(self, where: str, error: Exception, label: Label) -> Failure:
        """Return an operator's error as it travels. Raises RemoteFailure, which ends the session, on private data."""
        if label.private and not self._gate.traceback(label):
            self._gate.failed(label)
            raise failures.kernel(where, error, described=False).error() from error
        return failures.kernel(where, error, described=True)

    def _fail(self, failure: Failure, step: list[Any]) -> None:
        for ident in step[1]:
            if ident:
                self.objects.poison(ident, failure)
        if any(step[1]):
            return
        named = [each for name, each in step[3].items() if name == "out"] if len(step) > 3 else []
        for ident in _idents([*step[2][:1], *named]):  # what was to be written is not what it should be
            self.objects.poison(ident, failure)

    # ---- recorded programs

    def free(self, ident: int) -> None:
        """Forget a tensor or a program."""
        program = self._programs.pop(ident, None)
        if program is None:
            return self.objects.free(ident)
        for held in program.outside:
            self.objects.let_go(held)

    def define(self, asked: frames.Define) -> None:
        """Build a recorded program, which then runs by its number."""
        if len(self._programs) >= self._limits.programs:
            raise OverLimit(f"{len(self._programs)} recorded programs", "record fewer functions")
        self.learn(asked.names)
        try:
            program = build(asked, self._operators, self.objects)
        except Poisoned as error:
            raise error.failure.error() from error
        for held in program.outside:  # one memory must not come to have two labels
            self.objects.hold(held)
        if asked.program in self._programs:
            self.free(asked.program)
        self._programs[asked.program] = program

    def _repeat(self, program: Program, inputs: list[list[int]], outputs: list[list[int]]) -> None:
        for given, made in zip(inputs, outputs, strict=True):
            self._once(program, given, made)

    def _once(self, program: Program, given: list[int], made: list[int]) -> None:
        label = OWN
        try:
            held = [self.objects.find(ident) for ident in given]
            label = self._allowed_in(program, held)
            self.objects.reserve(program.nbytes)
            run = provenance.about(program, held) if label.private else None
            starts = [None] * len(program.changed) if run is None else provenance.starts(program, run)
            if program.random:
                with self.randomness.drawing():
                    values = program.run([each.tensor for each in held])
            else:
                values = program.run([each.tensor for each in held])
        except Poisoned as error:
            self._fail_program(program, error.failure, made)
        except ShoalError as error:
            self._fail_program(program, failures.of(error), made)
        except KERNEL_ERRORS as error:
            self._fail_program(program, self._failed("a recorded program", error, label), made)
        else:
            program.mark(label, held, run, starts)
            for place, (ident, value) in enumerate(zip([*made, *program.kept], values, strict=True)):
                self.objects.keep(ident, value, label, None if run is None else run.made(place))

    def _allowed_in(self, program: Program, held: list[Held]) -> Label:
        label = join((*(each.storage.label for each in held), *(each.storage.label for each in program.outside)))
        for operator in program.operators if label is not program.permitted else ():
            self._gate.operate(operator, label, tells_values=False)  # `build` takes none that does
        program.permitted = label
        return label

    def _fail_program(self, program: Program, failure: Failure, made: list[int]) -> None:
        program.broken = program.broken or failure
        for ident in (*made, *program.kept, *program.written):
            self.objects.poison(ident, failure)


def _tensors(values: Any) -> list[torch.Tensor]:
    if isinstance(values, torch.Tensor):
        return [values]
    return [each for value in values for each in _tensors(value)] if isinstance(values, list) else []


def _idents(given: Any) -> list[int]:
    if isinstance(given, list):
        return [ident for each in given for ident in _idents(each)]
    return [ident_of(given)] if getattr(given, "code", None) == frames.REF else []


def _new_bytes(operator: Operator, args: list[Any], kwargs: dict[str, Any], *, always: bool) -> int:
    """Return the bytes that a call will take for its results; with `always`, try it also where that is none.

    Raises Misfit where its arguments do not go together.
    """
    if operator.tells_values(args):
        return sum(each.nbytes for each in _tensors(args)) * 8
    none = not operator.out and (operator.returns_written or any(source is not None for source in operator.views))
    if none and not always:
        return 0
    key: list[Any] = [operator.name]
    _describe(args, key)
    for name, value in kwargs.items():
        key.append(name)
        _describe(value, key)
    try:
        found = results(operator, tuple(key), args, kwargs, _on_meta)
    except KERNEL_ERRORS as error:
        raise Misfit(error) from error
    for name, each in zip(operator.out, found.outputs, strict=False):
        given = kwargs.get(name)
        if each is None or given is None or (given.numel() and tuple(given.shape) != each.shape):
            raise Misfit(ValueError(f"{operator.name} into a tensor of another shape"))
    return 0 if none else sum(each.nbytes for each in found.outputs if each is not None)


def _describe(given: Any, key: list[Any]) -> None:
    if isinstance(given, torch.Tensor):
        key.append(layout(given))
    elif isinstance(given, list):
        key.append(len(given))
        for each in given:
            _describe(each, key)
    else:
        key.append((type(given), given) if not isinstance(given, float) else float)


def _on_meta(given: Any) -> Any:
    if isinstance(given, torch.Tensor):
        of: Layout = layout(given)
        return empty(of)
    if isinstance(given, torch.device):
        return torch.device("meta")
    return [_on_meta(each) for each in given] if isinstance(given, list) else given

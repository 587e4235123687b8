"""One client's session at a worker: messages in, answers out; no sockets, no clock of its own.

Messages are counted. What a client did not hear of when its connection broke is answered again, nothing is done again.
"""

import secrets
import threading
import time
from collections.abc import Callable
from typing import Any

import msgspec
import structlog
import torch

from shoal.core.errors import BadRequest, NotPermitted, OverLimit, RemoteFailure, ShoalError
from shoal.remote import failures, frames
from shoal.remote.aggregating import prepared
from shoal.remote.arriving import Arriving, raw
from shoal.remote.catalogue import Catalogue
from shoal.remote.executor import Executor
from shoal.remote.failures import KERNEL_ERRORS, Failure
from shoal.remote.frames import Answer, Ask, Batch, Credit, Define, Failed, Get, Leave, Part, Put, Reply, Value
from shoal.remote.labels import OWN, Aggregate, Gate, Label, Release
from shoal.remote.limits import Limits
from shoal.remote.objects import Poisoned
from shoal.remote.provenance import Source

log = structlog.get_logger()

Say = Callable[[bytes], None]


class Visit:
    """What a worker keeps of one client."""

    def __init__(
        self,
        person: str,
        gate: Gate,
        limits: Limits,
        catalogue: Catalogue,
        processor: Callable[[], float] = time.thread_time,
    ) -> None:
        self.ident = secrets.token_hex(8)
        self.secret = secrets.token_urlsafe(24)
        self.person = person
        self.done = 0
        self.turn = 0
        """Counts connections: what an earlier one still brings is not taken any more."""
        self.over = False
        self.executor = Executor(gate, limits)
        self._gate = gate
        self._limits = limits
        self._catalogue = catalogue
        self._processor = processor
        self._spent = 0.0
        self._lock = threading.Lock()
        self._answers: dict[int, tuple[Reply, ...]] = {}
        self._arriving: Arriving | None = None
        self._steps = 0
        self._bytes = 0

    def next_turn(self) -> int:
        """Begin a new connection, when what the one before brought is carried out."""
        with self._lock:
            self.turn += 1
            return self.turn

    def take(self, data: bytes, turn: int, say: Say) -> None:
        """Carry out one message and say what there is to say; what is wrong with it ends the session."""
        with self._lock:
            if turn == self.turn and not self.over:
                self._take(data, say)

    def _take(self, data: bytes, say: Say) -> None:
        began = self._processor()
        try:
            self._carry_out(frames.question(data), say)
        except ShoalError as error:
            self.end(error, say)
        except Exception:  # a mistake of ours must not let a client wait for ever
            log.exception("a message could not be carried out", person=self.person)
            self.end(RemoteFailure("the worker could not carry out a message", "tell its owner: it is logged"), say)
        self._spent += self._processor() - began
        self._bytes += len(data)
        if self._spent > self._limits.seconds and not self.over:
            self.end(OverLimit(f"{self._spent:.0f} processor seconds", "connect again with less work"), say)
        if self._steps > self._limits.window // 8 or self._bytes > self._limits.window_bytes // 8:
            self._steps = self._bytes = 0
            say(frames.encode(Credit(self.done)))

    def end(self, error: ShoalError, say: Say) -> None:
        """End the session with an error, and free what it held."""
        self.over = True
        self.executor.objects.clear()
        say(frames.encode(Failed(0, self.done, error.code, error.problem, error.fix)))

    def resume(self, waiting: tuple[int, ...], say: Say) -> None:
        """Say again what the client did not hear."""
        for request in waiting:
            for reply in self._answers.get(request, ()):
                say(frames.encode(reply))

    def _carry_out(self, message: frames.Question, say: Say) -> None:
        self.done += 1
        match message:
            case Batch():
                self._batch(message)
            case Get() | Ask():
                self._forget(message.oldest)
                self._answer(message.request, self._replies(message), say)
            case Put():
                self._begin(message)
            case Part():
                self._arrive(message.data)
            case Define():
                self._define(message)
            case Leave():
                self.over = True
                self.executor.objects.clear()
            case _:
                raise BadRequest("a second greeting", "open a new connection")

    def _batch(self, batch: Batch) -> None:
        self.executor.learn(batch.names)
        with torch.no_grad():
            for step in batch.steps:
                self.executor.run(step)
        for ident in batch.freed:
            self.executor.free(ident)
        self._steps += sum(frames.weight(step) for step in batch.steps)

    def _define(self, asked: Define) -> None:
        try:
            with torch.no_grad():
                self.executor.define(asked)
        except (*KERNEL_ERRORS, KeyError) as error:
            raise BadRequest("a recorded program that does not fit its inputs", "record it again") from error

    def _begin(self, put: Put) -> None:
        try:
            self._gate.accept(put.size)
            self.executor.objects.reserve(put.size)
        except (NotPermitted, OverLimit) as error:
            self.executor.objects.poison(put.ident, failures.of(error))
            self._arriving = Arriving(put, ident=put.ident, keep=False)
        else:
            self._arriving = Arriving(put, ident=put.ident)

    def _arrive(self, data: bytes) -> None:
        arriving = self._arriving
        if arriving is None:
            raise BadRequest("a piece of no tensor", "announce it first")
        arriving.add(data)
        if arriving.complete:
            self._arriving = None
            if arriving.tensor is not None:
                self.executor.put(arriving.ident, arriving.tensor)

    def _forget(self, oldest: int) -> None:
        for request in [each for each in self._answers if each < oldest]:
            del self._answers[request]

    def _answer(self, request: int, replies: tuple[Reply, ...], say: Say) -> None:
        self._answers[request] = replies
        for reply in replies:
            say(frames.encode(reply))

    def _replies(self, asked: Get | Ask) -> tuple[Reply, ...]:
        try:
            if isinstance(asked, Get):
                return self._value(asked)
            return (Answer(asked.request, self.done, self._ask(asked.what, asked.arguments)),)
        except Poisoned as error:
            failure = error.failure
        except BadRequest:
            raise
        except ShoalError as error:
            failure = failures.of(error)
        return (self._failed(asked.request, failure),)

    def _failed(self, request: int, failure: Failure) -> Failed:
        return Failed(request, self.done, failure.code, failure.problem, failure.fix, failure.kind, failure.trace)

    def _value(self, asked: Get) -> tuple[Reply, ...]:
        held = self.executor.objects.find(asked.ident)
        tensor = self._gate.release(Release(held, asked.reason))
        dtype, data = frames.NAMES[tensor.dtype], raw(tensor)
        shape, size = list(tensor.shape), len(data)
        if size <= self._limits.part:
            return (Value(asked.request, self.done, dtype, shape, size, data),)
        parts = (Part(data[at : at + self._limits.part]) for at in range(0, size, self._limits.part))
        return (Value(asked.request, self.done, dtype, shape, size, None), *parts)

    def _ask(self, what: str, given: dict[str, Any]) -> Any:
        match what:
            case "sync":
                return {"objects": len(self.executor.objects), "bytes": self.executor.objects.nbytes}
            case "catalogue":
                return msgspec.to_builtins(self._catalogue.entries(_texts(given.get("tags", []))))
            case "open":
                return self._open(_text(given, "name"), _text(given, "array"), given.get("ident"))
            case "layouts":
                return self._layouts(given.get("idents", []))
            case "mock":
                return self._mock(_text(given, "name"), _text(given, "array"), given.get("ident"))
            case "aggregate":
                epsilon = given.get("epsilon")
                asked = Aggregate(
                    _text(given, "name"),
                    _text(given, "array"),
                    _text(given, "statistic"),
                    float(epsilon) if isinstance(epsilon, int | float) else 0.0,
                )
                return self._aggregate(asked, given.get("ident"))
        raise BadRequest(f"a question {what[:50]!r}", "use the same version on both sides")

    def _open(self, name: str, array: str, ident: Any) -> dict[str, Any]:
        found = self._catalogue.find(name)
        # a view of its own: what a client does in place must not reach the owner's rows
        tensor = found.array(array).detach().clone(memory_format=torch.contiguous_format)
        source = Source(name, array, found.rows, tensor[:1].numel(), tensor.dtype)
        return self._lend(ident, tensor, found.label, source)

    def _layouts(self, idents: list[int]) -> list[Any]:
        tensors = [self.executor.objects.find(ident).tensor for ident in idents]
        return [[frames.NAMES[each.dtype], list(each.shape), list(each.stride())] for each in tensors]

    def _mock(self, name: str, array: str, ident: Any) -> dict[str, Any]:
        found = self._catalogue.find(name)
        self._gate.mock(name, real=found.mock_of == "columns")
        return self._lend(ident, found.mock(array), OWN)

    def _aggregate(self, asked: Aggregate, ident: Any) -> dict[str, Any]:
        noisy = prepared(self._catalogue.find(asked.data), asked)
        self._gate.aggregate(asked)  # before anything is drawn
        return self._lend(ident, noisy(), OWN)

    def _lend(self, ident: Any, tensor: torch.Tensor, label: Label, source: Source | None = None) -> dict[str, Any]:
        if not isinstance(ident, int):
            raise BadRequest("a question without a number for its answer", "use the same version on both sides")
        self.executor.put(ident, tensor, label, source)
        return {"dtype": frames.NAMES[tensor.dtype], "shape": list(tensor.shape)}


def _text(given: dict[str, Any], name: str) -> str:
    value = given.get(name)
    if not isinstance(value, str):
        raise BadRequest(f"a question without {name!r}", "use the same version on both sides")
    return value


def _texts(given: Any) -> list[str]:
    if not isinstance(given, list) or not all(isinstance(each, str) for each in given):
        raise BadRequest("tags that are no texts", "use the same version on both sides")
    return given

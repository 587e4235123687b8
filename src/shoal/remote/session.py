"""A client's session with a worker: steps are gathered and sent without waiting; answers are waited for.

A connection that breaks is opened again, and what the worker had not carried out is sent again, by number: nothing is
lost and nothing is done twice. Where the worker has freed the session, SessionLost says so.
"""

import itertools
import threading
import time
import weakref
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import torch

from shoal.core.errors import NotRecordable, OverLimit, SessionLost, ShoalError, Unreachable
from shoal.remote import frames
from shoal.remote.arguments import tensor as tensor_of
from shoal.remote.arriving import Arriving, raw
from shoal.remote.channel import Broken, Channel, Dial
from shoal.remote.failures import Failure
from shoal.remote.frames import Answer, Ask, Batch, Define, Failed, Get, Hello, Leave, Part, Put, Value, Welcome
from shoal.remote.operators import Operator
from shoal.remote.traffic import Traffic

STEPS = 512
"""Steps that are gathered into one message."""
IDLE_SECONDS = 0.005
"""After so long without one, the next step is sent at once with what was gathered."""
SMALL = 64 << 10
"""Bytes of a tensor that travels among the steps."""
FIRST_PAUSE, LONGEST_PAUSE = 0.05, 1.0

_open: "weakref.WeakSet[Session]" = weakref.WeakSet()


@dataclass(frozen=True, slots=True)
class Patience:
    """How long a client waits, in seconds."""

    answer: float = 600.0
    """For one answer, with all that was asked before it."""
    line: float = 30.0
    """For a connection, the first or one after a loss."""


@dataclass(frozen=True, slots=True)
class _Sent:
    number: int
    data: bytes
    weight: int


class Session:
    """The client's end. Steps may come from several threads, their order is that of the calls."""

    def __init__(
        self,
        dial: Dial,
        *,
        patience: Patience,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self.traffic = Traffic()
        self.recording: Any = None
        """The Trace of the function that is being recorded."""
        self._dial = dial
        self._patience = patience
        self._clock = clock
        self._idents = itertools.count(1)
        self._requests = itertools.count(1)
        self._gone: list[int] = []
        self._numbers: dict[str, int] = {}
        self._new_names: list[str] = []
        self._steps: list[Any] = []
        self._weight = 0
        self._flushed = clock()
        self._order = threading.RLock()
        """Held while a message takes its number and goes out."""
        self._heard = threading.Condition()
        """Guards what the listening side changes; never held while sending, or both ends could wait for each other."""
        self._welcome: Welcome | None = None
        self._channel: Channel | None = None
        self._line = 0
        self._broken = True
        self._lost = False
        """Whether the newest line is over, perhaps before its greeting was answered."""
        self._ended: ShoalError | None = None
        self._hurry = False
        """Whether a broken line can wait until somebody needs it."""
        self._sent = 0
        self._unsure: deque[_Sent] = deque()
        self._unsure_steps = self._unsure_bytes = 0
        self._answers: dict[int, Any] = {}
        self._waiting: set[int] = set()
        self._arriving: tuple[int, Arriving] | None = None
        with self._order:
            self._connect()
        _open.add(self)

    # ---- what a client does

    @property
    def name(self) -> str:
        """The name of the worker."""
        return self._greeting.name

    def new_ident(self) -> int:
        """Return a number for a tensor that is to be made."""
        return next(self._idents)

    def gone(self, ident: int) -> None:
        """Note that a handle is gone; the worker hears of it with the next message."""
        self._gone.append(ident)

    def number(self, operator: Operator) -> int:
        """Return the number of an operator in this session."""
        found = self._numbers.get(operator.name)
        if found is None:
            found = self._numbers[operator.name] = len(self._numbers)
            self._new_names.append(operator.name)
        return found

    def uses(self, prefix: str, steps: list[list[Any]]) -> bool:
        """Whether an operator of such a name is among the steps."""
        numbers = {number for name, number in self._numbers.items() if name.startswith(prefix)}
        return any(step[0] in numbers for step in steps)

    def step(self, operator: Operator, idents: Sequence[int], args: list[Any], kwargs: dict[str, Any]) -> None:
        """Let the worker run an operator, some time soon."""
        with self._order:
            number = self.number(operator)
            step = [number, idents, args, kwargs] if kwargs else [number, idents, args]
            self.traffic.operators += 1
            if self.recording is not None:
                self.recording.note(step)
            self._add(step)

    def seed(self, seed: int) -> None:
        """Begin the worker's stream of random numbers for this session anew."""
        with self._order:
            self._refuse_recording("a seed, which each call would set again")
            self._add([frames.SEED, seed])

    def run(self, program: int, inputs: list[list[int]], outputs: list[list[int]]) -> None:
        """Run a recorded program, once for each of the inputs."""
        with self._order:
            self._refuse_recording("a recorded function inside another")
            self._add([frames.RUN, program, inputs, outputs], len(inputs) * 8)

    def put(self, sent: torch.Tensor, ident: int) -> None:
        """Send a tensor, whole among the steps or in pieces."""
        data = raw(sent)
        dtype, shape = frames.NAMES[sent.dtype], list(sent.shape)
        with self._order:
            if self.recording is not None and not self.recording.optimizing:
                self._refuse_recording("a local tensor that is sent, which would be the same in each call")
            if len(data) <= SMALL:
                self._add([frames.PUT, ident, dtype, shape, data], 1 + len(data) * STEPS // self._greeting.part)
                return
            self.flush()
            self._send(Put(ident, dtype, shape, len(data)))
            view = memoryview(data)
            for at in range(0, len(data), self._greeting.part):
                self._send(Part(view[at : at + self._greeting.part]))  # type: ignore[arg-type]

    def define(self, program: int, steps: list[Any], inputs: list[int], outputs: list[int], kept: list[int]) -> None:
        """Let the worker build a recorded program."""
        with self._order:
            self.flush()
            self._send(Define(program, [], steps, inputs, outputs, kept))

    def value(self, ident: int, reason: str | None) -> torch.Tensor:
        """Wait for a tensor's values. Raises what went wrong with it, or NotPermitted."""
        return self._ask(lambda request, oldest: Get(request, oldest, ident, reason))  # type: ignore[no-any-return]

    def ask(self, what: str, **arguments: Any) -> Any:
        """Wait for the answer to a question."""
        return self._ask(lambda request, oldest: Ask(request, oldest, what, arguments))

    def flush(self) -> None:
        """Send what was gathered."""
        with self._order:
            gone, self._gone[:] = self._gone[:], []
            steps, self._steps = self._steps, []
            names, self._new_names = self._new_names, []
            self._flushed = self._clock()
            self._weight = 0
            if steps or gone or names:
                self._send(Batch(names, steps, gone), max(1, sum(frames.weight(step) for step in steps)))

    def nudge(self) -> None:
        """Send what was gathered if that needs no waiting."""
        if not self._order.acquire(blocking=False):
            return
        try:
            greeting, ended = self._greeting, self._ended is not None or self._broken
            if not ended and self._unsure_steps <= greeting.window and self._unsure_bytes <= greeting.window_bytes:
                self._hurry = True
                self.flush()
        finally:
            self._hurry = False
            self._order.release()

    def close(self) -> None:
        """Leave: the worker frees everything at once."""
        with self._order:
            channel, self._channel = self._channel, None
            if channel is None:
                return
            if self._ended is None:
                self._ended = SessionLost("the session was closed", "connect again")
                if not self._broken:
                    self._say(channel, frames.encode(Leave()))
            channel.close()

    def _refuse_recording(self, what: str) -> None:
        if self.recording is not None:
            raise NotRecordable(f"{self.recording.line()}: {what}", "give it to the function as a remote tensor")

    # ---- going out

    def _add(self, step: list[Any], weight: int = 1) -> None:
        self._steps.append(step)
        self._weight += weight
        if self._weight >= STEPS or self._clock() - self._flushed > IDLE_SECONDS:
            self.flush()

    def _send(self, message: frames.Question, weight: int = 1) -> None:
        data = frames.encode(message)
        if len(data) > self._greeting.frame:
            raise OverLimit(f"one message of {len(data)} bytes", f"the worker takes {self._greeting.frame}")
        with self._heard:
            self._raise_if_ended()
        self._await_credit()
        with self._heard:
            self._sent += 1
            self._unsure.append(_Sent(self._sent, data, weight))
            self._unsure_steps += weight
            self._unsure_bytes += len(data)
            channel = None if self._broken else self._channel
        said = channel is not None and self._say(channel, data)
        if not said and not self._hurry:
            self._connect()

    def _say(self, channel: Channel, data: bytes) -> bool:
        self.traffic.messages_sent += 1
        self.traffic.bytes_sent += len(data) + framing(len(data)) + 4
        try:
            channel.send(data)
        except Broken:
            self._broken = True
            return False
        return True

    def _await_credit(self) -> None:
        greeting = self._greeting
        deadline = self._clock() + self._patience.answer
        while self._unsure_steps > greeting.window or self._unsure_bytes > greeting.window_bytes:
            if self._broken:
                self._connect()
            with self._heard:
                self._raise_if_ended()
                if self._broken or (
                    self._unsure_steps <= greeting.window and self._unsure_bytes <= greeting.window_bytes
                ):
                    continue
                self._pause(deadline, "credit")

    def _pause(self, deadline: float, awaited: str) -> None:
        left = deadline - self._clock()
        if left <= 0:
            raise Unreachable(
                f"no {awaited} from worker {self.name!r} in {self._patience.answer:g} seconds",
                "give it more time (timeout=), or look at what it does",
            )
        self._heard.wait(left)

    # ---- waiting for answers

    def _ask(self, question: Callable[[int, int], Get | Ask]) -> Any:
        for session in list(_open):  # nobody works while its client stands still
            if session is not self:
                session.nudge()
        request = next(self._requests)
        self.traffic.waits += 1
        began = self._clock()
        with self._order:
            self.flush()
            with self._heard:
                self._waiting.add(request)
                oldest = min(self._waiting)
            try:
                self._send(question(request, oldest))
            except ShoalError:
                self._waiting.discard(request)
                raise
        answer = self._await(request)
        self.traffic.seconds += self._clock() - began
        if isinstance(answer, Failure):
            raise answer.error()
        return answer

    def _await(self, request: int) -> Any:
        deadline = self._clock() + self._patience.answer
        try:
            while True:
                with self._heard:
                    if request in self._answers:
                        return self._answers.pop(request)
                    self._raise_if_ended()
                    if not self._broken:
                        self._pause(deadline, "answer")
                        continue
                with self._order:
                    if self._broken:
                        self._connect()
        finally:
            self._waiting.discard(request)

    def _raise_if_ended(self) -> None:
        if self._ended is not None:
            raise type(self._ended)(self._ended.problem, self._ended.fix)

    # ---- coming in

    def _hear(self, line: int, data: bytes | None) -> None:
        with self._heard:
            if line != self._line:
                return
            if data is None:
                self._broken = self._lost = True
            else:
                self.traffic.messages_received += 1
                self.traffic.bytes_received += len(data) + framing(len(data))
                try:
                    self._take(frames.reply(data))
                except ShoalError as error:
                    self._ended = error
            self._heard.notify_all()

    def _take(self, said: frames.Reply) -> None:
        match said:
            case Welcome():
                self._welcome = said
                self._broken = False
            case Value():
                self._begin(said)
            case Part() if self._arriving is not None:
                self._arriving[1].add(said.data)
            case Answer() if said.request in self._waiting:
                self._answers[said.request] = said.value
            case Failed(request=0):
                self._ended = Failure(said.code, said.problem, said.fix, said.kind).error()
            case Failed() if said.request in self._waiting:
                self._answers[said.request] = Failure(said.code, said.problem, said.fix, said.kind, said.trace)
        if self._arriving is not None and self._arriving[1].complete:
            request, arrived = self._arriving
            self._arriving = None
            if request in self._waiting:  # who asked may have been interrupted
                self._answers[request] = arrived.tensor
        if not isinstance(said, Part):
            self._forget(said.done)

    def _begin(self, value: Value) -> None:
        if value.data is None:
            self._arriving = (value.request, Arriving(value))
        elif value.request in self._waiting:
            self._answers[value.request] = tensor_of(value.dtype, value.shape, value.data)

    def _forget(self, done: int) -> None:
        while self._unsure and self._unsure[0].number <= done:
            sent = self._unsure.popleft()
            self._unsure_steps -= sent.weight
            self._unsure_bytes -= len(sent.data)

    # ---- the line

    @property
    def _greeting(self) -> Welcome:
        assert self._welcome is not None
        return self._welcome

    def _connect(self) -> None:
        """Open a line, for the first time or again, and send what the worker has not carried out."""
        deadline = self._clock() + self._patience.line
        pause = FIRST_PAUSE
        again = self._welcome is not None
        while not self._try_connect(deadline):
            left = deadline - self._clock()
            if left <= 0:
                raise Unreachable(
                    f"worker {self.name!r} did not come back in {self._patience.line:g} seconds"
                    if again
                    else f"no worker answered in {self._patience.line:g} seconds",
                    "check that it runs and that the address is right",
                )
            threading.Event().wait(min(pause, left))
            pause = min(2 * pause, LONGEST_PAUSE)
        self.traffic.reconnections += again

    def _try_connect(self, deadline: float) -> bool:
        with self._heard:
            self._raise_if_ended()
            self._line += 1
            line = self._line
            self._arriving = None
            self._lost = False
            waiting = tuple(sorted(self._waiting - self._answers.keys()))
            known = self._welcome
        try:
            self._channel = channel = self._dial(lambda data: self._hear(line, data))
        except Broken:
            return False
        hello = (
            Hello(frames.PROTOCOL) if known is None else Hello(frames.PROTOCOL, known.session, known.secret, waiting)
        )
        if not self._say(channel, frames.encode(hello)) or not self._welcomed(known, deadline):
            channel.close()
            return False
        return all(self._say(channel, sent.data) for sent in list(self._unsure))

    def _welcomed(self, known: Welcome | None, deadline: float) -> bool:
        with self._heard:
            while self._welcome is known or self._welcome is None:
                self._raise_if_ended()
                left = deadline - self._clock()
                if self._lost or left <= 0 or not self._heard.wait(left):
                    return False
        return True


def framing(size: int) -> int:
    """Return the bytes of a WebSocket header before so many of payload, without a mask."""
    return 2 if size < 126 else 4 if size < 1 << 16 else 10

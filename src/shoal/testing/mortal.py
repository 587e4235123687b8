"""Devices that die on purpose and come back: real agents in threads, over sockets and a network that misbehaves.

They need no torch: what they learn is drawn from the seed of their assignment.
"""

import random
import threading
from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path

import httpx
import numpy as np

from shoal.agent.agent import Agent
from shoal.agent.data import ArrayData
from shoal.agent.home import AgentHome
from shoal.agent.work import Result, trained
from shoal.core.errors import BadRequest, BadSignature, NotPermitted
from shoal.core.receipt import Receipt
from shoal.core.task import TaskSpec, weight_units
from shoal.core.tree import Tree
from shoal.core.types import Assignment, Update
from shoal.testing.flaky import FlakyTransport
from shoal.testing.server_process import ServerProcess
from shoal.wire.backoff import Backoff
from shoal.wire.http import Connection, SocketTransport, Traffic
from shoal.wire.messages import ErrorMessage, decode
from shoal.wire.models import fetch_tree
from shoal.wire.parts import Parts

JOIN_SECONDS = 60.0


class Dropped(Exception):
    """A device dies here, on purpose."""


@dataclass(slots=True)
class Ledger(httpx.BaseTransport):
    """Notes every receipt on its way from the coordinator, also those that the network then loses."""

    inner: httpx.BaseTransport
    receipts: dict[str, Receipt] = field(default_factory=dict[str, Receipt])
    refused: Counter[str] = field(default_factory=Counter[str])
    turned_away: Counter[str] = field(default_factory=Counter[str])
    repeated: int = 0

    def handle_request(self, request: httpx.Request) -> httpx.Response:
        """Send one request and look at its answer."""
        response = self.inner.handle_request(request)
        if not request.url.path.endswith(("/report", "/upload")):
            return response
        try:
            data = b"".join(response.iter_raw())
        finally:
            response.close()
        self._note(request, response, data)
        return httpx.Response(response.status_code, headers=response.headers, stream=httpx.ByteStream(data))

    def _note(self, request: httpx.Request, response: httpx.Response, data: bytes) -> None:
        if response.status_code >= httpx.codes.INTERNAL_SERVER_ERROR:
            self.turned_away[decode(data, ErrorMessage).code] += 1
        elif not request.url.path.endswith("/report"):
            return
        elif response.is_success:
            receipt = decode(data, Receipt)
            known = self.receipts.setdefault(receipt.assignment, receipt)
            self.repeated += known is not receipt
            if known != receipt:
                raise BadRequest(f"two receipts for one report, {known} and {receipt}", "give the first one again")
        elif (code := decode(data, ErrorMessage).code) != BadSignature.code:
            self.refused[code] += 1  # a signature is refused when the network doubles a call: it is signed anew


class Mortal(httpx.BaseTransport):
    """Lets a device die when it is about to send a report that is durable already, and when it has arrived."""

    def __init__(self, inner: httpx.BaseTransport, chance: Callable[[], float], share: float) -> None:
        self._inner = inner
        self._chance = chance
        self._share = share

    def handle_request(self, request: httpx.Request) -> httpx.Response:
        """Send one request, or die before or after. Raises Dropped."""
        dies = self._chance() if request.url.path.endswith("/report") else 1.0
        if dies < self._share:
            raise Dropped
        response = self._inner.handle_request(request)
        if dies < 2 * self._share:
            response.read()
            response.close()
            raise Dropped
        return response


class Walk:
    """Carries out assignments without torch: each moves the model a step towards a place drawn from its seed."""

    ready = True

    def __init__(self, connection: Connection, device: "Device") -> None:
        self._connection = connection
        self._device = device

    @property
    def tasks(self) -> tuple[str, ...]:
        """The names of the tasks of the run."""
        return self._device.tasks

    def load(self) -> None:
        """Do nothing: there is no code."""

    def work(self, assignment: Assignment) -> Result:
        """Download the version, train, and sometimes die before anything is durable. Raises Dropped, NotPermitted."""
        self._device.note(assignment)
        if assignment.round > self._device.last.get(assignment.task, assignment.round):
            raise NotPermitted(f"round {assignment.round} of {assignment.task}", "the last round is over")
        spec = self._connection.call("GET", f"/v1/tasks/{assignment.task}", None, TaskSpec)
        params = fetch_tree(self._connection, assignment.version, spec.travelling)
        if self._device.random.random() < 0.02:
            raise Dropped
        return trained(assignment, step(assignment, params), 1)


def step(assignment: Assignment, params: Tree) -> Update:
    """Return the update of one assignment, the same each time."""
    rng = np.random.default_rng(assignment.seed)
    place = rng.standard_normal(params["w"].shape, np.float32)
    delta = {"w": (place - params["w"]) * np.float32(0.25), "n": np.ones((), np.int64)}
    return Update(assignment.id, delta, weight_units(1 + assignment.seed % 50), {"loss": float(place[0])})


class Device:
    """One agent in a thread, which dies and comes back until it is told to stop.

    `last` gives each task's last round, once that is known. `assigned` notes the task of each assignment, `ledger` the
    receipts, `forgotten` assignments that were given again after their receipt, `resumed` counts reports that it found
    in its outbox when it came back.
    """

    def __init__(
        self, name: str, server: ServerProcess, home: Path, seed: int, tasks: tuple[str, ...], last: Mapping[str, int]
    ) -> None:
        self.name = name
        self.tasks = tasks
        self.last = last
        self.random = random.Random(seed)  # noqa: S311  (no secret)
        self.assigned: dict[str, str] = {}
        self.forgotten: set[str] = set()
        self.resumed = 0
        self.error: Exception | None = None
        self._server = server
        self._home = AgentHome(home)
        self._sockets = SocketTransport(Traffic())
        self.ledger = Ledger(self._sockets)
        network = FlakyTransport(self.ledger, seed, drop=0.02, lose_reply=0.04, duplicate=0.1)
        self._line = Mortal(network, self.random.random, 0.02)
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._live, name=name, daemon=True)

    def start(self) -> None:
        """Begin to work."""
        self._thread.start()

    @property
    def alive(self) -> bool:
        """Whether it works, dying and coming back included."""
        return self._thread.is_alive()

    def _live(self) -> None:
        try:
            while not self._stop.is_set():
                self.resumed += len(self._home.reports())
                self._once()
        except Exception as error:  # noqa: BLE001  (raised again by `end`)
            self.error = error

    def _once(self) -> None:
        agent = Agent(
            self._server.url,
            self.name,
            self._home,
            ArrayData({"x": np.zeros((1, 1), np.float32)}),
            token=self._server.enrolment_token,
            say=lambda _: None,
            transport=self._line,
            wait=1.0,
            backoff=Backoff(0.05, 0.3, self.random.random),
            labour=lambda connection: Walk(connection, self),
            parts=Parts(over=32 << 10, size=48 << 10),
        )
        try:
            agent.run(self._stop)
        except Dropped:
            return

    def note(self, assignment: Assignment) -> None:
        """Take note of an assignment."""
        self.assigned[assignment.id] = assignment.task
        if assignment.id in self.ledger.receipts:
            # done again it gives the same bytes, and nobody would see that they had been lost
            self.forgotten.add(assignment.id)

    def acknowledged(self, task: str) -> dict[str, str]:
        """Return the digests of the updates of a task that have a receipt, by assignment."""
        receipts = self.ledger.receipts.values()
        return {receipt.assignment: receipt.digest for receipt in receipts if self.assigned[receipt.assignment] == task}

    def end(self) -> None:
        """Stop; raise what it ended with, if it ended before."""
        self._stop.set()
        self._thread.join(JOIN_SECONDS)
        self._sockets.close()
        self._home.close()
        if self.error is not None:
            raise self.error

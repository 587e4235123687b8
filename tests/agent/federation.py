"""A real coordinator in memory, and agents in threads that talk to it."""

import threading
import time
from collections.abc import Callable
from pathlib import Path

import httpx
import numpy as np
import torch
from torch import nn

from shoal.agent.agent import Agent
from shoal.agent.data import ArrayData, OwnerData
from shoal.agent.home import AgentHome
from shoal.algorithms.local import sgd
from shoal.core.task import LocalPlan
from shoal.researcher.coordinator import Coordinator as Researcher
from shoal.rounds.events import Reported
from shoal.server.app import build_app
from shoal.server.coordinator import Coordinator
from shoal.store.store import Blobs, Store
from shoal.testing.transport import InMemoryTransport
from shoal.train.task import Task

URL = "http://shoal"
JOIN_SECONDS = 20.0


class Line(nn.Module):
    """y = f(a x + b), the activation being the only thing that names and shapes do not tell."""

    def __init__(self, activation: nn.Module) -> None:
        super().__init__()
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(3)
            self.layers = nn.Sequential(nn.Linear(3, 4), activation, nn.Linear(4, 1))
        self.register_buffer("scale", torch.tensor(2.0))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        output: torch.Tensor = self.layers(x).squeeze(-1) * self.scale
        return output


def line_task(activation: nn.Module | None = None, **changes: object) -> Task:
    options: dict[str, object] = {
        "name": "line",
        "model": Line(activation or nn.ReLU()),
        "loss": nn.functional.mse_loss,
        "local": LocalPlan(epochs=1, batch_size=4, optimizer=sgd(0.05)),
        "example": (-np.ones((4, 3), np.float32), -np.ones(4, np.float32)),
        "roles": {"scale": "frozen"},
    }
    return Task(**{**options, **changes})  # type: ignore[arg-type]


def line_data(name: str, rows: int = 12) -> ArrayData:
    rng = np.random.default_rng(sum(name.encode()))
    x = rng.standard_normal((rows, 3)).astype(np.float32)
    return ArrayData({"x": x, "y": (x @ np.float32([1, -2, 3]) + 1).astype(np.float32)})


class Heard:
    """What agents said, in order; waiting for a line has a deadline."""

    def __init__(self) -> None:
        self.lines: list[str] = []
        self._changed = threading.Condition()

    def __call__(self, line: str) -> None:
        with self._changed:
            self.lines.append(line)
            self._changed.notify_all()

    def until(self, part: str) -> str:
        with self._changed:
            assert self._changed.wait_for(lambda: any(part in line for line in self.lines), JOIN_SECONDS), self.lines
            return next(line for line in self.lines if part in line)


class Running:
    """An agent at work in a thread; `end` stops it and raises what it raised."""

    def __init__(self, agent: Agent) -> None:
        self._stop = threading.Event()
        self._raised: BaseException | None = None
        self._threads = torch.get_num_threads()
        self._thread = threading.Thread(target=self._run, args=(agent,), daemon=True)
        self._thread.start()

    def _run(self, agent: Agent) -> None:
        torch.set_num_threads(self._threads)  # a setting of each thread, on which the order of sums depends
        try:
            agent.run(self._stop)
        except BaseException as error:  # noqa: BLE001  (raised again in the test's thread)
            self._raised = error

    def join(self) -> None:
        self._thread.join(JOIN_SECONDS)
        assert not self._thread.is_alive()
        raised, self._raised = self._raised, None
        if raised is not None:
            raise raised

    def end(self) -> None:
        self._stop.set()
        self.join()


class Federation:
    """The coordinator, and what its participants need to reach it."""

    def __init__(self, folder: Path, store: Store, blobs: Blobs, clock: Callable[[], float] = time.time) -> None:
        self.folder = folder
        self.coordinator = Coordinator(store, blobs, clock)
        now = self.coordinator.clock()
        self.admin = self.coordinator.identities.issue("admin", now)
        self.enrolment = self.coordinator.identities.issue("enrolment", now)
        self.transport = InMemoryTransport(build_app(self.coordinator))
        self.researcher = Researcher.connect(URL, token=self.admin, transport=self.transport)
        self.said = Heard()
        self._homes: dict[str, AgentHome] = {}
        self._running: list[Running] = []

    def home(self, name: str) -> AgentHome:
        if name not in self._homes:
            self._homes[name] = AgentHome(self.folder / name)
        return self._homes[name]

    def restart_home(self, name: str) -> AgentHome:
        self._homes.pop(name).close()
        return self.home(name)

    def agent(
        self,
        name: str,
        data: OwnerData | None = None,
        code: Callable[[], Task] | None = line_task,
        home: str | None = None,
        **options: object,
    ) -> Agent:
        chosen: dict[str, object] = {
            "token": self.enrolment,
            "say": self.said,
            "transport": self.transport,
            "wait": 0.2,
        }
        given = line_data(name) if data is None else data
        return Agent(URL, name, self.home(home or name), given, code=code, **{**chosen, **options})  # type: ignore[arg-type]

    def start(self, name: str, *given: object, **options: object) -> Running:
        running = Running(self.agent(name, *given, **options))  # type: ignore[arg-type]
        self._running.append(running)
        return running

    def reported(self, task: str) -> list[Reported]:
        """The reports that were accepted, from the task's stream of events."""
        records = self.coordinator.storage.store.events(task)
        return [record.event for _, record in records if isinstance(record.event, Reported)]

    def close(self) -> None:
        try:
            for running in self._running:
                running.end()
        finally:
            for home in self._homes.values():
                home.close()
            self.researcher.close()
            self.transport.close()


class Faulty(httpx.BaseTransport):
    """Hands requests on, and does `fault` where the path ends with `path`: before them, or after they were served."""

    def __init__(self, inner: httpx.BaseTransport, path: str, fault: list[BaseException], *, after: bool) -> None:
        self._inner = inner
        self._path = path
        self._faults = fault
        self._after = after

    def handle_request(self, request: httpx.Request) -> httpx.Response:
        meant = request.url.path.endswith(self._path) and bool(self._faults)
        if meant and not self._after:
            raise self._faults.pop()
        response = self._inner.handle_request(request)
        if meant:
            response.read()
            response.close()
            raise self._faults.pop()
        return response

"""Three agents over a network that drops, repeats, loses, delays, cuts and trickles: the versions stay the same."""

from collections import Counter
from collections.abc import Iterator, Mapping
from contextlib import ExitStack
from pathlib import Path

import httpx
import pytest
import torch

from shoal.agent.agent import Agent
from shoal.agent.home import AgentHome
from shoal.core.task import RoundPlan
from shoal.researcher.coordinator import Coordinator as Researcher
from shoal.store.blobs import FolderBlobs
from shoal.store.sql import SqlStore
from shoal.testing.flaky import FlakyTransport
from shoal.testing.in_process import run_in_process
from shoal.testing.proxy import FlakyProxy
from shoal.testing.server_process import ServerProcess
from shoal.train.data import ClientData
from shoal.train.loop import LoopTrainer
from shoal.train.task import compile_task
from shoal.wire.backoff import Backoff
from tests.agent.federation import Federation, Running, line_data, line_task

# models this small lose time to a second thread
torch.set_num_threads(1)

ROUNDS = 3
OWNERS = ("alice", "bob", "carol")


@pytest.fixture
def federation(tmp_path: Path) -> Iterator[Federation]:
    made = Federation(tmp_path, SqlStore(tmp_path / "shoal.db"), FolderBlobs(tmp_path / "blobs"))
    yield made
    made.close()


@pytest.fixture(scope="module")
def undisturbed() -> list[str]:
    task = line_task()
    owners = {name: ClientData(name, dict(line_data(name).arrays)) for name in OWNERS}
    compiled = compile_task(task, rounds=ROUNDS, plan=RoundPlan(3, 3), seed=1)
    return [version.digest for version, _ in run_in_process(compiled, owners, LoopTrainer(task))][1:]


def trained(researcher: Researcher) -> list[str]:
    run = researcher.publish(line_task(), rounds=ROUNDS, goal=3, minimum=3, seed=1, plan=False)
    versions = list(run.follow())
    assert [version.reports for version in versions] == [3] * ROUNDS
    return [version.digest for version in versions]


def quickly() -> Backoff:
    return Backoff(0.001, 0.01)


def happened(lines: Mapping[str, FlakyTransport] | Mapping[str, FlakyProxy]) -> Counter[str]:
    return sum((line.happened for line in lines.values()), start=Counter())


@pytest.mark.slow
def test_dropped_repeated_delayed_and_unanswered_requests(federation: Federation, undisturbed: list[str]):
    faults = {"drop": 0.15, "lose_reply": 0.15, "duplicate": 0.3, "delay": 0.3}
    lines = {
        name: FlakyTransport(federation.transport, seed, seconds=0.001, **faults) for seed, name in enumerate(OWNERS)
    }
    for name, line in lines.items():
        federation.start(name, transport=line, backoff=quickly())
    assert trained(federation.researcher) == undisturbed
    assert set(happened(lines)) == set(faults)
    reported = federation.reported("line-1")
    assert len({report.assignment for report in reported}) == len(reported) == 3 * ROUNDS


@pytest.mark.processes
def test_connections_that_are_cut_swallow_answers_and_trickle(tmp_path: Path, undisturbed: list[str]):
    faults = {"cut": 0.1, "swallow": 0.1, "trickle": 0.3}
    with ExitStack() as stack:
        server = stack.enter_context(ServerProcess(tmp_path / "home", tmp_path / "server.log"))
        assert server.start() is not None
        lines = {n: stack.enter_context(FlakyProxy(server.url, seed, **faults)) for seed, n in enumerate(OWNERS)}
        for name, line in lines.items():
            home = stack.enter_context(AgentHome(tmp_path / name))
            agent = Agent(
                line.url,
                name,
                home,
                line_data(name),
                token=server.enrolment_token,
                code=line_task,
                say=lambda _: None,
                wait=0.2,
                backoff=quickly(),
            )
            stack.callback(Running(agent).end)
        researcher = stack.enter_context(Researcher.connect(server.url, token=server.admin_token))
        assert trained(researcher) == undisturbed
        assert set(happened(lines)) == set(faults)


class Counting(httpx.BaseTransport):
    def __init__(self) -> None:
        self.bodies: list[bytes] = []

    def handle_request(self, request: httpx.Request) -> httpx.Response:
        self.bodies.append(request.read())
        return httpx.Response(200, text=str(len(self.bodies)))


@pytest.mark.parametrize(
    ("fault", "arrived", "answer"),
    [("drop", 0, httpx.ConnectError), ("lose_reply", 1, httpx.ReadError), ("duplicate", 2, "2"), ("delay", 1, "1")],
)
def test_each_fault_alone(fault: str, arrived: int, answer: str | type[Exception]):
    inner, slept = Counting(), list[float]()
    line = FlakyTransport(inner, 1, seconds=4.0, sleep=slept.append, **{fault: 1.0})
    with httpx.Client(transport=line) as client:
        if isinstance(answer, str):
            assert client.post("http://shoal/", content=iter([b"a", b"b"])).text == answer
        else:
            with pytest.raises(answer, match="on purpose"):
                client.post("http://shoal/", content=iter([b"a", b"b"]))
    assert inner.bodies == [b"ab"] * arrived
    assert line.happened == {fault: 1}
    assert [0.0 < seconds < 4.0 for seconds in slept] == [True] * (fault == "delay")


def test_the_same_seed_brings_the_same_faults():
    def faults(seed: int) -> list[int]:
        inner = Counting()
        with httpx.Client(transport=FlakyTransport(inner, seed, duplicate=0.5)) as client:
            return [int(client.get("http://shoal/").text) for _ in range(20)]

    assert faults(1) == faults(1) != faults(2)

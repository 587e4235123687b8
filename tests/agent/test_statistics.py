import subprocess
import sys

import numpy as np
import pytest

from shoal.agent.data import TableData
from shoal.agent.policy import Policy
from shoal.core.errors import Abandoned, NotPermitted
from shoal.core.task import Component, RoundPlan, TaskSpec
from shoal.data.tables import Table
from tests.agent.federation import Federation

COLUMNS = ("age", "size", "kind")
VALUES = np.random.default_rng(5).standard_normal((40, 3)) * [1.0, 100.0, 0.0] + [40.0, 7.0, 0.0]
VALUES[::3, 2] = 1.0


def table(first: int) -> TableData:
    return TableData(Table(COLUMNS, VALUES[first::2]), "kind")


def test_statistics_of_two_owners_equal_those_of_the_pooled_rows(federation: Federation):
    federation.start("bob", table(0), code=None)
    federation.start("alice", table(1), code=None)
    found = federation.researcher.statistics(COLUMNS, goal=2)
    np.testing.assert_allclose(found.mean, VALUES.mean(0), rtol=1e-12)
    np.testing.assert_allclose(found.deviation, VALUES.std(0, ddof=1), rtol=1e-12)
    assert found.binary.tolist() == [False, False, True]
    said = federation.said.until("releasing to statistics-1 pass 1")
    assert "pass 1: count, total, minimum, maximum of 3 columns over 20 rows" in said
    releases = list(federation.home("bob").releases())
    assert [(release.kind, release.round, release.what) for release in releases] == [
        ("statistics", 1, COLUMNS),
        ("statistics", 2, COLUMNS),
    ]


def test_columns_that_an_owner_lacks_are_refused_with_the_reason(federation: Federation):
    federation.start("bob", table(0), code=None)
    with pytest.raises(Abandoned):
        federation.researcher.statistics(("salary",), goal=1, deadline=0.2)
    assert "no column 'salary'" in federation.said.until("refused round 1 of statistics-1")
    assert {release.kind for release in federation.home("bob").releases()} == {"refused"}


def test_an_owner_may_keep_statistics_back(federation: Federation):
    federation.start("bob", table(0), code=None, policy=Policy(statistics=False))
    with pytest.raises(Abandoned, match="statistics-1 has 0 of 1 reports for version 1"):
        federation.researcher.statistics(COLUMNS, goal=1, deadline=0.2)
    assert federation.researcher.status("statistics").phase == "cancelled"
    assert list(federation.home("bob").releases()) == []


def spec(name: str, **changes: object) -> TaskSpec:
    return TaskSpec(name, {}, 9, RoundPlan(1), aggregator=Component("mean"), **changes)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("policy", "kind", "number", "rows", "why"),
    [
        (Policy(training=False), "training", 1, 99, "an update for task 'x': this owner allows statistics"),
        (
            Policy(False, False, evaluation=False),
            "statistics",
            1,
            99,
            "statistics for task 'x': this owner allows nothing",
        ),
        (Policy(), "histogram", 1, 99, "histogram for task 'x': this owner allows updates of a model and statistics"),
        (Policy(), "quantiles", 1, 99, "quantiles for task 'x': this owner allows updates of a model and statistics"),
        (Policy(evaluation=False), "evaluation", 1, 99, "metrics for task 'x': this owner allows updates of a model"),
        (Policy(), "statistics", 3, 99, "pass 3 of task 'x': statistics take 2 passes"),
        (Policy(minimum_rows=5), "statistics", 1, 4, "about 4 rows: this owner's policy asks for at least 5"),
    ],
)
def test_a_policy_says_what_it_would_allow(policy: Policy, kind: str, number: int, rows: int, why: str):
    with pytest.raises(NotPermitted, match=why):
        policy.check(spec("x", kind=kind), number, rows)


def test_a_policy_lets_pass_what_it_allows():
    Policy(training=False).check(spec("x", kind="statistics"), 2, 10)
    Policy(statistics=False).check(spec("x"), 7, 10)


WITHOUT_TORCH = """
import sys, threading
from pathlib import Path
from shoal.agent.agent import Agent
from shoal.agent.data import TableData
from shoal.agent.home import AgentHome
from shoal.data import boston_table
from shoal.researcher.coordinator import Coordinator as Researcher
from shoal.server.app import build_app
from shoal.server.coordinator import Coordinator
from shoal.store.memory import MemoryBlobs, MemoryStore
from shoal.testing.transport import InMemoryTransport

coordinator = Coordinator(MemoryStore(), MemoryBlobs())
admin, enrolment = (coordinator.identities.issue(role, 0.0) for role in ("admin", "enrolment"))
stop = threading.Event()
with InMemoryTransport(build_app(coordinator)) as transport, AgentHome(sys.argv[1]) as home:
    data = TableData(boston_table(), "MEDV")
    agent = Agent("http://shoal", "bob", home, data, token=enrolment, transport=transport, wait=0.2)
    thread = threading.Thread(target=agent.run, args=(stop,), daemon=True)
    thread.start()
    found = Researcher.connect("http://shoal", token=admin, transport=transport).statistics(["RM"], goal=1)
    stop.set()
    thread.join()
print("torch" in sys.modules, found.count[0])
"""


@pytest.mark.processes
def test_statistics_import_no_torch(tmp_path):
    done = subprocess.run(
        [sys.executable, "-c", WITHOUT_TORCH, str(tmp_path)], capture_output=True, text=True, timeout=60, check=False
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.splitlines()[-1] == "False 506.0"

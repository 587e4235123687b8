"""Run by test_full_disk: a coordinator and a device's home on a real disk that fills up, and is freed again."""

import sys
from pathlib import Path

import httpx
import numpy as np

from shoal.agent.home import AgentHome, Release
from shoal.core.errors import StorageFull
from shoal.core.task import ArraySpec, Bounds, RoundPlan, TaskSpec
from shoal.core.tree import Tree
from shoal.server.app import build_app
from shoal.server.serve import open_coordinator
from shoal.testing.clock import ManualClock
from shoal.testing.transport import InMemoryTransport
from tests.full_disk import fill, small_disk
from tests.server.conftest import Served, Signing, device_key, report_body

LARGE = 40_000
"""Numbers in the model: 160 kB, more than a database row takes."""


def spec() -> TaskSpec:
    plan = RoundPlan(goal=2, minimum=2, deadline=60.0, lease=20.0, attempts=1)
    bounds = Bounds(max_abs=8.0, max_weight=1000.0, max_updates=16)
    return TaskSpec("plain", {"w": ArraySpec((LARGE,), "float32")}, 1, plan, bounds=bounds)


def tree(value: float) -> Tree:
    return {"w": np.full(LARGE, value, np.float32)}


def refused(answer: httpx.Response) -> None:
    assert (answer.status_code, answer.json()["code"]) == (507, "storage_full"), answer.text
    assert answer.headers["retry-after"]
    assert "space" in answer.json()["problem"]
    assert answer.json()["fix"]


def rounds(disk: Path) -> None:
    """Everything that writes is refused while the disk is full, and nothing that was acknowledged is lost."""
    coordinator = open_coordinator(disk / "home")
    clock = ManualClock()
    coordinator.clock = clock
    admin, enrolment = (coordinator.identities.issue(role, clock()) for role in ("admin", "enrolment"))
    transport = InMemoryTransport(build_app(coordinator))
    with httpx.Client(transport=transport, base_url="http://shoal", auth=Signing(coordinator)) as client:
        served = Served(client, coordinator, clock, admin, enrolment)
        task = served.publish(spec(), tree(0.0)).id
        given = {name: served.check_in(name).assignment for name in ("bob", "alice")}
        bob, alice = given["bob"], given["alice"]
        assert bob is not None
        assert alice is not None
        first = served.report("bob", bob.id, report_body(tree(1.0)))
        assert first.status_code == 200, first.text

        ballast = fill(disk)
        refused(served.report("alice", alice.id, report_body(tree(3.0))))
        refused(client.post("/v1/blobs", content=bytes(100_000), headers=served.people()))
        refused(served.enrol("x" * 60, device_key("x")))

        ballast.unlink()
        assert served.report("bob", bob.id, report_body(tree(1.0))).json() == first.json()
        assert served.report("alice", alice.id, report_body(tree(3.0))).status_code == 200
        [version] = served.versions(task, after=0).versions
        assert version.reports == 2
        assert served.versions(task, after=0).status.phase == "finished"
    transport.close()


def agent(disk: Path) -> None:
    """A device keeps what it has, and works again."""
    with AgentHome(disk / "bob") as home:
        home.keep_report("a1", [b"one"])
        ballast = fill(disk)
        for write in (
            lambda: home.keep_report("a2", [bytes(100_000)]),
            lambda: home.keep_blob("0" * 64, lambda _: [bytes(100_000)]),
            lambda: home.log(Release(1.0, "line-1", 1, "update", reason="r" * 10_000)),
        ):
            try:
                write()
            except StorageFull as error:
                assert str(disk) in error.problem  # noqa: PT017
            else:
                raise AssertionError("written to a full disk")
        assert home.reports() == ["a1"]
        ballast.unlink()
        home.keep_report("a2", [bytes(100_000)])
        assert home.reports() == ["a1", "a2"]


if __name__ == "__main__":
    with small_disk(Path(sys.argv[1]) / "disk") as mounted:
        agent(mounted)
        rounds(mounted)

"""What people decide about devices that ask to join outlives the coordinator's process."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import httpx
import pytest

from shoal.server.app import build_app
from shoal.server.coordinator import Coordinator
from shoal.store.memory import MemoryBlobs
from shoal.store.sql import SqlStore
from shoal.testing.clock import ManualClock
from shoal.testing.transport import InMemoryTransport
from tests.server.conftest import Served, Signing, device_key


@contextmanager
def served(path: Path) -> Iterator[Served]:
    clock = ManualClock()
    coordinator = Coordinator(SqlStore(path), MemoryBlobs(), clock, approval=True)
    admin = coordinator.identities.issue("admin", clock())
    with (
        InMemoryTransport(build_app(coordinator)) as transport,
        httpx.Client(transport=transport, base_url="http://shoal", auth=Signing(coordinator)) as client,
    ):
        yield Served(client, coordinator, clock, admin, "")


def asks(here: Served, name: str, key: str | None = None) -> tuple[int, str]:
    answer = here.enrol(name, device_key(key or name), token="")
    return answer.status_code, answer.json().get("code", "")


def tell(here: Served, name: str, what: str, **body: object) -> int:
    return here.client.post(f"/v1/devices/{name}/{what}", json=body, headers=here.people()).status_code


@pytest.fixture
def path(tmp_path: Path) -> Path:
    """The database of a coordinator that let ann in for one task, and turned bob and a false carl away."""
    made = tmp_path / "shoal.db"
    with served(made) as first:
        for name, key in (("ann", ""), ("bob", ""), ("carl", "mallory"), ("dora", "")):
            assert asks(first, name, key) == (503, "pending")
        assert tell(first, "ann", "approve", scope=["digits"]) == 200
        assert tell(first, "bob", "refuse") == 200
        assert tell(first, "carl", "refuse") == 200
    return made


def test_an_approval_and_its_scope(path: Path):
    with served(path) as again:
        assert asks(again, "ann") == (200, "")
        assert again.coordinator.identities.devices["ann"].scope == ("digits",)


def test_a_refusal_until_somebody_approves(path: Path):
    with served(path) as again:
        assert asks(again, "bob") == (403, "forbidden")
        states = {device.name: device.state for device in again.coordinator.identities.statuses()}
        assert states == {"ann": "enrolled", "bob": "refused", "carl": "refused"}
        assert tell(again, "bob", "approve") == 200
        assert asks(again, "bob") == (200, "")
    with served(path) as once_more:
        assert asks(once_more, "bob") == (200, "")
        assert [one.name for one in once_more.coordinator.storage.store.refused()] == ["carl"]


def test_a_refusal_is_of_a_key_and_leaves_the_name_free(path: Path):
    with served(path) as again:
        assert asks(again, "carl", "mallory") == (403, "forbidden")
        assert asks(again, "carl") == (503, "pending")
        assert tell(again, "carl", "approve") == 200
        assert asks(again, "carl") == (200, "")
        assert asks(again, "carl", "mallory") == (401, "unauthorised")


def test_who_waited_asks_again(path: Path):
    with served(path) as again:
        assert tell(again, "dora", "approve") == 404
        assert asks(again, "dora") == (503, "pending")
        assert tell(again, "dora", "approve") == 200

"""What an agent meets that is wrong, and what its owner reads."""

import threading
import time
from dataclasses import replace
from pathlib import Path

import httpx
import pytest

from shoal.agent.data import ArrayData
from shoal.core.errors import Conflict, NoRows, NotACoordinator, Unauthorised, WrongProtocol
from shoal.store.memory import MemoryBlobs, MemoryStore
from shoal.train.data import client_data
from shoal.wire.messages import SPOKEN
from tests.agent.federation import Federation, line_task

HOUR = 3600.0


class Changed(httpx.BaseTransport):
    """Hands requests on; the first few are answered by a web page, all are given `headers`."""

    def __init__(self, inner: httpx.BaseTransport, pages: int = 0, headers: dict[str, str] | None = None) -> None:
        self._inner = inner
        self.pages = pages
        self._headers = headers or {}

    def handle_request(self, request: httpx.Request) -> httpx.Response:
        request.headers.update(self._headers)
        if self.pages:
            self.pages -= 1
            return httpx.Response(200, stream=httpx.ByteStream(b"<html>Pay for this network</html>"))
        return self._inner.handle_request(request)


def run(federation: Federation, name: str = "bob", **options: object) -> None:
    federation.agent(name, **options).run(threading.Event())  # type: ignore[arg-type]


def test_a_wrong_token_ends_it(federation: Federation) -> None:
    with pytest.raises(Unauthorised, match="the token is not known here"):
        run(federation, token="wrong")
    assert federation.coordinator.identities.devices == {}


def test_a_name_that_is_taken_ends_it(federation: Federation) -> None:
    federation.start("bob", code=None)
    federation.said.until("enrolled as 'bob'")
    with pytest.raises(Conflict, match=r"'bob' belongs to another device, .*: choose another name"):
        run(federation, "bob", home="elsewhere")


@pytest.mark.slow
def test_a_coordinator_that_began_anew_is_joined_again_once(federation: Federation, tmp_path: Path) -> None:
    first = federation.start("bob", code=None)
    federation.said.until("enrolled as 'bob'")
    first.end()
    federation.restart_home("bob")
    anew = Federation(tmp_path / "anew", MemoryStore(), MemoryBlobs())
    try:
        with pytest.raises(Unauthorised, match="is not known here"):
            run(federation, token=None, transport=anew.transport)
        federation.restart_home("bob")
        joined = federation.start("bob", code=None, token=anew.enrolment, transport=anew.transport)
        federation.said.until("enrolling again: the device's key")
        joined.end()
        assert list(anew.coordinator.identities.devices) == ["bob"]
    finally:
        anew.close()


def test_a_revoked_device_does_not_join_again(federation: Federation) -> None:
    running = federation.start("bob", code=None)
    federation.said.until("enrolled as 'bob'")
    running.end()
    federation.restart_home("bob")
    devices = federation.coordinator.identities.devices
    devices["bob"] = replace(devices["bob"], revoked=1.0)
    with pytest.raises(Unauthorised, match="'bob' was revoked: ask an administrator"):
        run(federation)


def test_an_old_agent_ends_and_is_told_to_upgrade(federation: Federation) -> None:
    for spoken in ("0", "9"):
        with pytest.raises(WrongProtocol, match=f"protocol {spoken}, the coordinator speaks 1: upgrade Shoal on"):
            run(federation, transport=Changed(federation.transport, headers={SPOKEN: spoken}))


def test_a_web_page_ends_a_device_that_never_joined(federation: Federation) -> None:
    with pytest.raises(NotACoordinator, match=r"answered '<html>Pay for this network.*check that the address"):
        run(federation, transport=Changed(federation.transport, pages=9))


@pytest.mark.slow
def test_a_device_that_joined_waits_until_the_page_is_gone(federation: Federation) -> None:
    run_ = federation.researcher.publish(line_task(), rounds=2, goal=1, deadline=60.0, plan=False)
    first = federation.start("bob", code=None)
    federation.said.until("enrolled as 'bob'")
    first.end()
    federation.restart_home("bob")
    federation.start("bob", transport=Changed(federation.transport, pages=2))
    assert len(list(run_.follow())) == 2
    assert sum("Pay for this network" in line and "next try in" in line for line in federation.said.lines) == 2


def test_an_agent_whose_clock_is_an_hour_off_works_like_any_other(federation: Federation) -> None:
    made = federation.researcher.publish(line_task(), rounds=2, goal=2, deadline=60.0, lease=20.0, plan=False)
    for name, off in (("bob", HOUR), ("alice", -HOUR)):
        federation.start(name, clock=lambda off=off: time.time() + off)
    assert [version.reports for version in made.follow()] == [2, 2]


def test_an_owner_with_no_rows() -> None:
    with pytest.raises(NoRows, match="client 'bob' has no examples: give it at least one, or leave it out"):
        ArrayData(client_data("bob", ([], [])).arrays)

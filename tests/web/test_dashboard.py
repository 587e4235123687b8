"""A person at the dashboard: a real browser at a coordinator to which things happen."""

import json
import os
import subprocess
import threading
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import httpx
import pytest
import uvicorn

from shoal.server.app import build_app
from shoal.server.coordinator import Coordinator
from shoal.store.memory import MemoryBlobs, MemoryStore
from shoal.store.store import DeviceRecord
from tests.server.conftest import Served, Signing, delta, report_body, spec
from tests.web.browser import program

pytestmark = pytest.mark.processes

DRIVER = Path(__file__).with_name("dashboard.mjs")
HOSTILE = "<img src=x onerror=window.hacked=1>&lt;script&gt;"
CROWD = 10_000


@dataclass
class Town:
    """A coordinator that listens, and what the person at the browser wants to happen to it."""

    served: Served
    viewer: str
    offered: list[tuple[str, str]] = field(default_factory=list)
    turn: int = 0

    def want(self, what: str) -> object:
        match what:
            case "publish":
                return self.served.publish(spec(rounds=20, goal=2)).id
            case "select":
                return self._select()
            case "hostile":
                device, assignment = self.offered.pop()
                self.served.call(device, "POST", f"/v1/assignments/{assignment}/release", _reason(HOSTILE))
                self._select()
            case "commit":
                return self._commit()
            case "phase":
                status = self.served.coordinator.tasks.status(self.served.coordinator.tasks.find("plain"))
                return [status.phase, status.rounds]
            case "serving":
                return self.served.client.get("/v1/tasks/plain/heads", headers=self.served.people()).json()["serving"]
            case "crowd":
                for number in range(CROWD):
                    record = DeviceRecord(f"id-{number}", f"device-{number:05}", "", 1.0)
                    self.served.coordinator.identities.devices[record.name] = record
                    self.served.coordinator.identities.store.enrol(record, None)
            case "revoked":
                return self.served.coordinator.identities.devices["device-09999"].revoked is not None
            case "revoke viewer":
                tokens = self.served.client.get("/v1/tokens", headers=self.served.people()).json()
                found = next(token["id"] for token in tokens if token["role"] == "viewer")
                self.served.client.delete(f"/v1/tokens/{found}", headers=self.served.people())
                self.served.publish(spec(name="other"))  # whatever happens next, the stream asks again who reads
        return None

    def _select(self) -> None:
        while (assignment := self.served.check_in(f"phone-{self.turn}").assignment) is not None:
            self.offered.append((assignment.device, assignment.id))
            self.turn += 1
        self.turn += 1

    def _commit(self) -> None:
        newest = self.served.versions("plain", wait=0.0).status.latest.number
        while self.served.versions("plain", wait=0.0).status.latest.number == newest:
            if not self.offered:
                self._select()
            device, assignment = self.offered.pop()
            body = report_body(
                delta(0.1 / (newest + 1)), metrics={"loss": 2.0 / (newest + 2), "mae": 1.0 / (newest + 1)}
            )
            assert self.served.report(device, assignment, body).status_code in (200, 410)
            self.served.versions("plain", newest, wait=0.0 if self.offered else 5.0)


def _reason(text: str) -> bytes:
    return json.dumps({"reason": text}).encode()


@pytest.fixture(scope="module")
def town() -> Iterator[Town]:
    coordinator = Coordinator(MemoryStore(), MemoryBlobs())
    now = coordinator.clock()
    tokens = [coordinator.identities.issue(purpose, now) for purpose in ("admin", "enrolment", "viewer")]
    server = uvicorn.Server(uvicorn.Config(build_app(coordinator), port=0, log_config=None, ws="none"))
    listening = threading.Event()
    startup = server.startup

    async def started(sockets: Any = None) -> None:
        await startup(sockets)
        listening.set()

    server.startup = started  # type: ignore[method-assign]
    thread = threading.Thread(target=server.run)
    thread.start()
    assert listening.wait(60)
    port = server.servers[0].sockets[0].getsockname()[1]
    try:
        with httpx.Client(base_url=f"http://127.0.0.1:{port}", auth=Signing(coordinator), timeout=60) as client:
            served = Served(client, coordinator, coordinator.clock, tokens[0], tokens[1])  # type: ignore[arg-type]
            yield Town(served, tokens[2])
    finally:
        coordinator.bell.close()
        server.should_exit = True
        thread.join(60)


@pytest.fixture(scope="module")
def seen(town: Town) -> dict[str, Any]:

    given = {
        "url": str(town.served.client.base_url),
        "admin": town.served.admin,
        "viewer": town.viewer,
        "program": program("chromium"),
        "pictures": os.environ.get("SHOAL_PICTURES"),
    }
    with subprocess.Popen(
        [program("node"), str(DRIVER)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    ) as process:
        assert process.stdin is not None
        assert process.stdout is not None
        assert process.stderr is not None
        said: Any = None
        try:
            process.stdin.write(json.dumps(given) + "\n")
            process.stdin.flush()
            for line in process.stdout:
                said = json.loads(line)
                if "seen" in said:
                    return said["seen"]
                process.stdin.write(json.dumps(town.want(said["want"])) + "\n")
                process.stdin.flush()
        finally:
            process.kill()
        raise AssertionError(f"after {said}: {process.stderr.read()[-3000:]}")


def test_nothing_goes_wrong_in_the_page(seen):
    assert seen["problems"] == []
    assert seen["violations"] == []


def test_the_first_paint_is_small(seen):
    assert 0 < seen["transferred"] < 100_000
    assert seen["paint"] is not None


def test_a_person_signs_in_by_token_and_scripts_never_see_it(seen):
    assert seen["focused"] == "token"
    assert "token" in seen["wrong"]
    assert seen["script"] == ""


def test_an_empty_page_says_what_to_type(seen):
    assert "shoal publish task.py:task" in seen["empty"]


def test_a_round_is_seen_as_it_happens(seen):
    assert seen["parts"] == ["phone-0", "phone-1"]


def test_names_and_reasons_are_text_and_never_markup(seen):
    assert HOSTILE in seen["hostile"]["shown"]
    assert seen["hostile"]["images"] == 0
    assert seen["hostile"]["ran"] is None
    assert seen["markup"] == "TypeError"  # the policy stops what would make markup from a string


def test_tasks_are_paused_extended_cancelled_and_started_again(seen):
    assert seen["paused"] == ["paused", 20]
    assert seen["extended"] == ["collecting", 40]
    assert seen["kept"] == ["collecting", 40]  # Escape leaves it
    assert seen["again"].startswith("plain-2")


def test_versions_are_compared_promoted_and_rolled_back(seen):
    names = [row[0] for row in seen["compared"]]
    assert names == ["b", "mean", "w"]
    assert all(float(row[1]) > 0 for row in seen["compared"])
    assert seen["promoted"] == 1


def test_what_happened_and_what_leaves_is_told(seen):
    assert "committed" in seen["Rounds"]
    assert HOSTILE in seen["Rounds"]
    assert "No row leaves a device" in seen["What leaves a device"]
    assert "personal" not in seen["What leaves a device"]  # this model has no such array
    assert "Committed" in seen["Log"]
    assert "version 1 rolled back" in seen["audit"]
    assert "extended to 40 rounds" in seen["audit"]


def test_ten_thousand_devices_are_a_few_elements(seen):
    assert "10,0" in seen["crowd"]
    assert seen["rows"] < 60
    assert seen["scrolled"] < 60
    assert seen["nodes"] < 1000
    assert seen["revoked"] is True


def test_a_viewer_gets_no_buttons_and_is_refused(seen):
    assert seen["viewer"] == []
    assert seen["forbidden"] == 403


def test_the_keyboard_is_enough(seen):
    assert seen["keyboard"] == "Skip to the content"


def test_a_revoked_token_ends_the_session(seen):
    assert "revoked" in seen["out"]


def test_every_view_passes_the_accessibility_check_and_fits_its_window(seen):
    assert {name: found for name, found in seen["axe"].items() if found} == {}
    assert len(seen["axe"]) == 10
    assert seen["overflow"] == []

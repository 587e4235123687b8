"""The stream of events: whole views, coalesced, for as long as the reader may read."""

import asyncio
import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import pytest

from shoal.core.errors import Unauthorised
from shoal.core.tree import encode
from shoal.rounds.events import CheckedIn, Extended, Released
from shoal.server import live
from shoal.server.coordinator import Coordinator
from shoal.server.live import EventStream, frames, view
from shoal.store.memory import MemoryBlobs, MemoryStore
from tests.server.conftest import START, Served, served, spec

__all__ = ["served"]


@asynccontextmanager
async def coordinator() -> AsyncIterator[Coordinator]:
    here = Coordinator(MemoryStore(), MemoryBlobs())
    await here.start()
    writer = here.storage.blobs.writer("published")
    writer.write(encode(START))
    try:
        await here.tasks.publish(spec(initial=writer.commit()))
        yield here
    finally:
        await here.stop()


def caller(here: Coordinator):
    token = here.identities.issue("viewer", here.clock())
    return here.identities.person(f"Bearer {token}", here.clock())


def read(frame: bytes) -> tuple[str, dict]:
    name, _, data = frame.decode().partition("\ndata: ")
    return name.removeprefix("event: "), json.loads(data)


def run(body) -> None:
    async def inside() -> None:
        async with asyncio.timeout(60), coordinator() as here:
            await body(here)

    asyncio.run(inside())


def test_a_thousand_events_are_a_few_frames_and_the_last_one_has_it_all(monkeypatch):
    monkeypatch.setattr(live, "PAUSE_SECONDS", 0.02)

    async def body(here: Coordinator) -> None:
        task, got = here.tasks.find("plain"), []

        async def reads() -> None:
            async for frame in frames(here, caller(here), lambda: None):
                if frame.startswith(b"event: task"):
                    got.append(read(frame)[1])
                if got and got[-1]["rounds"] == 1002:
                    return

        reader = asyncio.create_task(reads())
        for rounds in range(3, 1003):
            await task.handle(Extended(rounds))
        await reader
        assert len(got) < 500
        assert got[-1]["rounds"] == 1002

    run(body)


def test_a_stream_begins_with_everything_and_goes_on_with_what_changed(monkeypatch):
    monkeypatch.setattr(live, "PAUSE_SECONDS", 0.0)

    async def body(here: Coordinator) -> None:
        stream = frames(here, caller(here), lambda: None)
        assert read(await anext(stream))[1]["tasks"] == ["plain-1"]
        assert read(await anext(stream))[1]["phase"] == "collecting"
        await here.tasks.pause("plain")
        name, told = read(await anext(stream))
        assert (name, told["id"], told["phase"]) == ("task", "plain-1", "paused")

    run(body)


def test_who_may_read_no_longer_is_told_so_and_the_stream_ends(monkeypatch):
    monkeypatch.setattr(live, "PAUSE_SECONDS", 0.0)
    monkeypatch.setattr(live, "BEAT_SECONDS", 0.05)

    async def body(here: Coordinator) -> None:
        sent: list[dict] = []
        asked = 0

        def still() -> None:
            nonlocal asked
            asked += 1
            if asked > 1:
                raise Unauthorised("the token was revoked", "ask for another one")

        async def send(message) -> None:
            sent.append(message)

        stream = EventStream(frames(here, caller(here), still))
        here.bell.ring()
        sending = asyncio.create_task(stream({}, asyncio.Event().wait, send))
        await here.tasks.pause("plain")
        await sending
        assert sent[-2]["body"].startswith(b"event: over")
        assert sent[-1] == {"type": "http.response.body", "body": b""}

    run(body)


def test_a_reader_that_takes_nothing_is_cut_off(monkeypatch):
    monkeypatch.setattr(live, "STALLED_SECONDS", 0.0)

    async def body(here: Coordinator) -> None:
        started = []

        async def send(message) -> None:
            if message["type"] == "http.response.start":
                started.append(message)
            else:
                await asyncio.Event().wait()

        await EventStream(frames(here, caller(here), lambda: None))({}, asyncio.Event().wait, send)
        assert len(started) == 1

    run(body)


def test_those_who_need_a_look_come_first():
    async def body(here: Coordinator) -> None:
        task = here.tasks.find("plain")
        for device in ("ann", "ben"):
            await task.handle(CheckedIn(device))
        lease = task.state.leases["ben"]
        await task.handle(Released(lease.assignment.id, "ben", "its battery is empty"))
        shown = view(task.state, here.clock())
        assert [(part.device, part.state, part.reason) for part in shown.parts] == [
            ("ben", "released", "its battery is empty"),
            ("ann", "offered", ""),
        ]
        assert shown.states == {"released": 1, "offered": 1}

    run(body)


def test_the_log_pages_back_to_the_first_event(served: Served):
    served.publish(spec())
    for rounds in range(3, 260):
        served.client.post("/v1/tasks/plain/extend", json={"rounds": rounds}, headers=served.people())
    newest = served.client.get("/v1/tasks/plain/log", headers=served.people()).json()
    assert newest["length"] == 258
    assert [entry["position"] for entry in newest["entries"]] == list(range(258, 58, -1))
    assert newest["entries"][0]["event"] == {"rounds": 259}
    older = served.client.get("/v1/tasks/plain/log?before=59", headers=served.people()).json()
    assert [entry["position"] for entry in older["entries"]] == list(range(58, 0, -1))
    assert older["entries"][-1]["kind"] == "Published"
    assert "spec" not in older["entries"][-1]["event"]


@pytest.mark.parametrize("accept", ["gzip", "identity"])
def test_the_dashboard_comes_small_and_once(served: Served, accept: str):
    first = served.client.get("/", headers={"Accept-Encoding": accept})
    assert first.status_code == 200
    assert "default-src 'none'" in first.headers["content-security-policy"]
    assert "unsafe" not in first.headers["content-security-policy"]
    assert served.client.get("/", headers={"If-None-Match": first.headers["etag"]}).status_code == 304
    script = served.client.get("/dashboard/views/task.js")
    assert script.headers["content-type"].startswith("text/javascript")
    for wrong in ("nothing.js", "../app.py", "%2e%2e/app.py"):
        assert served.client.get(f"/dashboard/{wrong}").status_code == 404

"""Check-ins that bring nothing are answered at once, and as the ordinary way would answer; all others go that way."""

import asyncio
import hashlib
import json
import re
from collections.abc import Awaitable, Callable
from functools import partial

import numpy as np
import pytest
import uvicorn
from fastapi import FastAPI

from shoal.core.tree import encode as encode_tree
from shoal.server.app import build_app
from shoal.server.at_once import AtOnce
from shoal.server.come_back import come_back
from shoal.server.coordinator import Coordinator
from shoal.server.page import open_to_browsers
from shoal.store.memory import MemoryBlobs, MemoryStore
from shoal.store.store import DeviceRecord
from shoal.testing.clock import ManualClock
from shoal.wire.digests import digest_field
from shoal.wire.messages import CheckInRequest, encode
from shoal.wire.signing import key_id, sign
from tests.server.conftest import START, device_key, nonce, spec

ORIGIN = "https://app.example.org"
SOON = 20.0


class Desk:
    """A coordinator on a port, with two devices of which one has the only place; counts what is answered at once."""

    def __init__(self) -> None:
        self.clock = ManualClock()
        store = MemoryStore()
        for name in ("alice", "bob"):
            public = device_key(name).public
            store.enrol(DeviceRecord(key_id(public), name, public, 0.0), None)
        self.coordinator = Coordinator(store, MemoryBlobs(), clock=self.clock)
        self.app: FastAPI = build_app(self.coordinator)
        open_to_browsers(self.app, None, [ORIGIN])
        self.at_once = 0
        self.state = uvicorn.server.ServerState()

    def answer(self, fields: dict[bytes, bytes], body: bytes) -> bytes | None:
        answer = come_back(self.coordinator, fields, body)
        self.at_once += answer is not None
        return answer

    async def begin(self) -> None:
        blobs = self.coordinator.storage.blobs
        model, base = blobs.writer("published"), blobs.writer("published")
        model.write(encode_tree(START))
        base.write(encode_tree({"base": np.zeros(4, np.float32)}))
        await self.coordinator.tasks.publish(spec(goal=1, initial=model.commit(), frozen=base.commit()))

    def check_in(self, name: str, *, wait: float = 0.0, body: bytes = b"", **fields: str) -> bytes:
        sent = encode(CheckInRequest(training=("plain",), wait=wait))
        digest = digest_field(hashlib.sha256(sent).digest())
        now = self.coordinator.identities.nonces.now(self.clock())
        signed = sign(device_key(name), "POST", "/v1/checkin", digest, now, nonce())
        body = body or sent
        head = {"Host": "here", "Content-Length": str(len(body)), **signed, **fields}
        lines = "".join(f"{field}: {value}\r\n" for field, value in head.items())
        return f"POST /v1/checkin HTTP/1.1\r\n{lines}\r\n".encode() + body


async def answer(reader: asyncio.StreamReader) -> tuple[int, dict[str, str], dict[str, object]]:
    head = (await reader.readuntil(b"\r\n\r\n")).decode()
    fields = {name.lower(): value for name, value in re.findall(r"(\S+): (.*)\r\n", head)}
    return int(head.split()[1]), fields, json.loads(await reader.readexactly(int(fields["content-length"])))


Talk = Callable[[Desk, asyncio.StreamReader, asyncio.StreamWriter], Awaitable[None]]


def talk(conversation: Talk) -> None:
    async def run() -> None:
        desk = Desk()
        config = uvicorn.Config(desk.app, lifespan="off", log_config=None, proxy_headers=False)
        config.load()
        loop = asyncio.get_running_loop()
        made = partial(AtOnce, config, desk.state, {}, answer=desk.answer)
        server = await loop.create_server(made, "127.0.0.1", 0)
        async with asyncio.timeout(SOON):
            await desk.begin()
            reader, writer = await asyncio.open_connection(*server.sockets[0].getsockname())
            await conversation(desk, reader, writer)
            writer.close()
            await writer.wait_closed()
        server.close()

    asyncio.run(run())


async def until(true: Callable[[], bool]) -> None:
    """Let the loop turn, as `talk` bounds it."""
    turn = asyncio.get_running_loop().create_future()
    while not true():
        asyncio.get_running_loop().call_soon(turn.set_result, None)
        await turn
        turn = asyncio.get_running_loop().create_future()


async def asked(reader: asyncio.StreamReader, writer: asyncio.StreamWriter, call: bytes):
    writer.write(call)
    return await answer(reader)


def test_both_ways_give_the_same_answer():
    async def conversation(desk: Desk, reader, writer) -> None:
        status, _, given = await asked(reader, writer, desk.check_in("alice"))
        assert (status, given["assignment"]["device"], desk.at_once) == (200, "alice", 0)
        at_once = await asked(reader, writer, desk.check_in("bob"))
        assert desk.at_once == 1
        ordinary = await asked(reader, writer, desk.check_in("bob", **{"Content-Encoding": "identity"}))
        assert at_once[0] == ordinary[0] == 200
        assert at_once[1].keys() | {"vary"} == ordinary[1].keys()
        assert at_once[1]["shoal-held"] == ordinary[1]["shoal-held"]
        assert at_once[1]["content-type"] == ordinary[1]["content-type"]
        assert at_once[2] == ordinary[2]
        assert at_once[2]["reason"] == "round 1 has its 1 devices"
        assert desk.coordinator.identities.seen["bob"] == desk.clock()
        text = desk.coordinator.metrics.text(**dict.fromkeys(desk.coordinator.metrics._gauges, 0.0)).decode()
        assert f'shoal_check_ins_total{{outcome="waiting"}} {2.0}' in text
        assert desk.at_once == 1

    talk(conversation)


def test_a_call_that_comes_in_pieces_goes_the_ordinary_way():
    async def conversation(desk: Desk, reader, writer) -> None:
        await asked(reader, writer, desk.check_in("alice"))
        call = desk.check_in("bob")
        writer.write(call[:-5])
        await until(lambda: bool(desk.state.tasks))
        assert (await asked(reader, writer, call[-5:]))[2]["reason"] == "round 1 has its 1 devices"
        assert desk.at_once == 0

    talk(conversation)


def test_who_has_work_gets_it_again():
    async def conversation(desk: Desk, reader, writer) -> None:
        first = await asked(reader, writer, desk.check_in("alice"))
        again = await asked(reader, writer, desk.check_in("alice"))
        assert first[2]["assignment"] == again[2]["assignment"]
        assert desk.at_once == 0

    talk(conversation)


@pytest.mark.parametrize("field", ["Origin", "Shoal-Protocol", "Content-Encoding"])
def test_what_asks_for_more_than_an_answer_goes_the_ordinary_way(field: str):
    given = {"Origin": ORIGIN, "Shoal-Protocol": "99", "Content-Encoding": "gzip"}

    async def conversation(desk: Desk, reader, writer) -> None:
        await asked(reader, writer, desk.check_in("alice"))
        status, fields, _ = await asked(reader, writer, desk.check_in("bob", **{field: given[field]}))
        assert status == {"Origin": 200, "Shoal-Protocol": 426, "Content-Encoding": 415}[field]
        assert (fields.get("access-control-allow-origin") == ORIGIN) == (field == "Origin")
        assert desk.at_once == 0

    talk(conversation)


def test_what_is_refused_is_refused_as_ever():
    async def conversation(desk: Desk, reader, writer) -> None:
        await asked(reader, writer, desk.check_in("alice"))
        call = desk.check_in("bob")
        assert (await asked(reader, writer, call))[0] == 200
        assert desk.at_once == 1
        replayed = await asked(reader, writer, call)
        assert (replayed[0], replayed[2]["code"]) == (401, "bad_signature")
        assert "came before" in str(replayed[2]["problem"])
        other = encode(CheckInRequest(training=("other",)))
        altered = await asked(reader, writer, desk.check_in("bob", body=other))
        assert (altered[0], altered[2]["code"]) == (401, "bad_signature")
        stranger = await asked(reader, writer, desk.check_in("mallory"))
        assert (stranger[0], stranger[2]["code"]) == (401, "unauthorised")
        await desk.coordinator.identities.revoke("bob", desk.clock())
        revoked = await asked(reader, writer, desk.check_in("bob"))
        assert (revoked[0], revoked[2]["code"]) == (401, "unauthorised")
        assert desk.at_once == 1

    talk(conversation)


def test_calls_that_come_together_are_answered_in_order():
    async def conversation(desk: Desk, reader, writer) -> None:
        health = b"GET /healthz HTTP/1.1\r\nHost: here\r\n\r\n"
        writer.write(desk.check_in("alice") + desk.check_in("bob") + health + desk.check_in("bob"))
        answers = [await answer(reader) for _ in range(4)]
        assert [status for status, _, _ in answers] == [200] * 4
        assert answers[0][2]["assignment"]["device"] == "alice"
        assert answers[1][2]["reason"] == answers[3][2]["reason"] == "round 1 has its 1 devices"
        assert answers[2][2]["status"] == "ok"

    talk(conversation)


def test_a_connection_that_is_not_to_be_kept_is_closed():
    async def conversation(desk: Desk, reader, writer) -> None:
        await asked(reader, writer, desk.check_in("alice"))
        assert (await asked(reader, writer, desk.check_in("bob", Connection="close")))[0] == 200
        assert await reader.read() == b""
        assert desk.at_once == 0

    talk(conversation)


def test_a_long_poll_is_held():
    async def conversation(desk: Desk, reader, writer) -> None:
        await asked(reader, writer, desk.check_in("alice"))
        writer.write(desk.check_in("bob", wait=20.0))
        await until(lambda: desk.coordinator.bell.waiting > 0)
        desk.coordinator.bell.close()
        status, fields, said = await answer(reader)
        assert (status, said["assignment"], "shoal-held" in fields) == (200, None, True)

    talk(conversation)

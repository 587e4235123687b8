"""A peer that does not finish the head of its request is cut off; one that does may take its time between requests."""

import asyncio
from contextlib import suppress

import pytest
import uvicorn

from shoal.server.heads import HeadsInTime


async def application(scope, receive, send):
    await send({"type": "http.response.start", "status": 204, "headers": []})
    await send({"type": "http.response.body", "body": b""})


async def spoken(*sent: bytes) -> list[bytes]:
    """Return what is answered to each part that is sent on one connection, and then what comes until it is closed."""
    config = uvicorn.Config(application, lifespan="off", log_config=None)
    config.load()
    state = uvicorn.server.ServerState()
    loop = asyncio.get_running_loop()
    server = await loop.create_server(lambda: HeadsInTime(config, state, {}), "127.0.0.1", 0)
    reader, writer = await asyncio.open_connection(*server.sockets[0].getsockname())
    answers = []
    async with asyncio.timeout(20):
        for part in sent:
            if part is PAUSE:
                with suppress(TimeoutError):
                    await asyncio.wait_for(reader.read(1), 0.5)
                continue
            writer.write(part)
            if part.endswith(b"\r\n\r\n"):
                answers.append(await reader.readuntil(b"\r\n\r\n"))
        answers.append(await reader.read())
    writer.close()
    await writer.wait_closed()
    server.close()
    await server.wait_closed()
    return answers


PAUSE = b"pause"
CLOSING = b"GET / HTTP/1.1\r\nHost: shoal\r\nConnection: close\r\n\r\n"
WHOLE = b"GET / HTTP/1.1\r\nHost: shoal\r\n\r\n"


@pytest.fixture(autouse=True)
def _hurry(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr("shoal.server.heads.HEAD_SECONDS", 0.1)


def test_a_head_that_stops_in_the_middle_is_told_408():
    [answer] = asyncio.run(spoken(b"GET / HTTP/1.1\r\nHost: sh"))
    assert answer.startswith(b"HTTP/1.1 408 ")
    assert b"connection: close" in answer


def test_a_connection_that_says_nothing_is_closed():
    assert asyncio.run(spoken(b"")) == [b""]


def test_the_second_request_of_a_connection_has_the_same_time():
    first, second = asyncio.run(spoken(WHOLE, b"GET / HTTP/1.1\r\n"))
    assert first.startswith(b"HTTP/1.1 204 ")
    assert second.startswith(b"HTTP/1.1 408 ")


def test_between_requests_only_the_time_of_a_kept_connection_counts():
    # five times what a head may take, and the connection is still there for the second request
    first, second, rest = asyncio.run(spoken(WHOLE, PAUSE, CLOSING))
    assert first.startswith(b"HTTP/1.1 204 ")
    assert second.startswith(b"HTTP/1.1 204 ")
    assert rest == b""

import asyncio
import threading
from collections.abc import Iterator

import httpx
import pytest

from shoal.testing.transport import InMemoryTransport

seen: list[str] = []


async def app(scope, receive, send) -> None:
    """Echoes bodies; other paths misbehave in the ways that servers do."""
    if scope["type"] == "lifespan":
        await lifespan(receive, send)
        return
    if scope["path"] == "/broken":
        raise ZeroDivisionError("on purpose")
    if scope["path"] == "/held":
        seen.append("held")
        while (await receive())["type"] != "http.disconnect":
            pass
        seen.append("left")
        return
    await send({"type": "http.response.start", "status": 201, "headers": [(b"query", scope["query_string"])]})
    if scope["path"] == "/torn":
        await send({"type": "http.response.body", "body": b"half", "more_body": True})
        return
    more = True
    while more:
        message = await receive()
        more = message["more_body"]
        await send({"type": "http.response.body", "body": message["body"], "more_body": more})


async def lifespan(receive, send) -> None:
    for kind in ("startup", "shutdown"):
        assert (await receive())["type"] == f"lifespan.{kind}"
        seen.append(kind)
        await send({"type": f"lifespan.{kind}.complete"})


@pytest.fixture
def transport() -> Iterator[InMemoryTransport]:
    seen.clear()
    with InMemoryTransport(app) as made:
        yield made


def client(transport: InMemoryTransport, timeout: float = 10.0) -> httpx.Client:
    return httpx.Client(transport=transport, base_url="http://here", timeout=timeout)


def test_the_lifespan_frames_everything():
    seen.clear()
    threads = threading.active_count()
    with InMemoryTransport(app) as transport:
        assert seen == ["startup"]
        assert client(transport).get("/echo").status_code == 201
    assert seen == ["startup", "shutdown"]
    assert threading.active_count() == threads
    transport.close()


def test_bodies_stream_in_both_directions(transport: InMemoryTransport):
    pieces = [bytes([i]) * 1000 for i in range(5)]
    with client(transport).stream("POST", "/echo?a=1&b=%20", content=iter(pieces)) as response:
        assert response.headers["query"] == "a=1&b=%20"
        assert list(response.iter_raw()) == pieces


def test_what_the_application_raises_is_raised_to_the_caller(transport: InMemoryTransport):
    with pytest.raises(ZeroDivisionError, match="on purpose"):
        client(transport).get("/broken")


def test_an_answer_that_ends_too_early_is_an_error(transport: InMemoryTransport):
    with pytest.raises(httpx.RemoteProtocolError, match="too early"):
        client(transport).get("/torn")


def test_a_read_timeout_counts_and_tells_the_application(transport: InMemoryTransport):
    with pytest.raises(httpx.ReadTimeout):
        client(transport, timeout=0.05).get("/held")
    transport.close()
    assert seen == ["startup", "held", "left", "shutdown"]


def test_closing_answers_those_who_wait():
    raised: list[Exception] = []
    began = threading.Event()

    async def forever(scope, receive, send) -> None:
        if scope["type"] == "lifespan":
            await lifespan(receive, send)
        else:
            began.set()
            await asyncio.Event().wait()

    def call() -> None:
        try:
            client(transport, timeout=30.0).get("/")
        except httpx.TransportError as error:
            raised.append(error)

    transport = InMemoryTransport(forever)
    thread = threading.Thread(target=call)
    thread.start()
    assert began.wait(5.0)
    transport.close()
    thread.join(5.0)
    assert [type(error) for error in raised] == [httpx.ReadError]
    with pytest.raises(httpx.ConnectError, match="is closed"):
        client(transport).get("/")


@pytest.mark.parametrize("says", ["lifespan.startup.failed", None])
def test_an_application_that_cannot_start_is_an_error(says: str | None):
    threads = threading.active_count()

    async def failing(scope, receive, send) -> None:
        await receive()
        if says is not None:
            await send({"type": says, "message": "no disk"})

    with pytest.raises(RuntimeError, match=r"no disk|without an answer"):
        InMemoryTransport(failing)
    assert threading.active_count() == threads

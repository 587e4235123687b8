"""Calls that go past the framework are answered as by it; answers leave in one write."""

import asyncio

import pytest
from fastapi import APIRouter, Depends, Request, Response

from shoal.server.app import QUICK
from shoal.server.quick import Table
from shoal.server.whole import Gathering


def found(table: Table, method: str, path: str) -> tuple[object, dict[str, str]]:
    route = table.find(method, path)
    assert route is not None
    return route[0].endpoint, dict(route[1])


def test_what_devices_call_most_goes_straight() -> None:
    assert found(QUICK, "POST", "/v1/checkin")[0] is not None
    endpoint, parts = found(QUICK, "POST", "/v1/assignments/a1/report")
    assert endpoint is not None
    assert parts == {"assignment": "a1"}


def test_routes_with_numbers_are_left_to_the_framework() -> None:
    assert found(QUICK, "PUT", "/v1/tasks/t-1/pins/3") == (None, {"task": "t-1", "number": "3"})
    assert found(QUICK, "GET", "/v1/tasks/t-1/versions")[0] is None


@pytest.mark.parametrize(("method", "path"), [("GET", "/v1/nothing"), ("DELETE", "/v1/checkin"), ("GET", "/healthz")])
def test_what_no_route_takes_is_passed_on(method: str, path: str) -> None:
    assert QUICK.find(method, path) is None


def test_each_call_reaches_the_route_that_the_framework_would_choose() -> None:
    router = APIRouter()

    async def typed(request: Request, number: int) -> Response:
        return Response()

    async def plain(request: Request, name: str) -> Response:
        return Response()

    router.add_api_route("/{number}", typed, response_class=Response)
    router.add_api_route("/{name}", plain, response_class=Response)
    assert found(Table.of(router.routes), "GET", "/7")[0] is None
    assert found(Table.of(reversed(router.routes)), "GET", "/7") == (plain, {"name": "7"})


def test_a_route_with_a_dependency_is_left_to_the_framework() -> None:
    router = APIRouter()

    async def plain(request: Request) -> Response:
        return Response()

    router.add_api_route("/x", plain, response_class=Response, dependencies=[Depends(plain)])
    assert found(Table.of(router.routes), "GET", "/x")[0] is None


class Socket(asyncio.Transport):
    def __init__(self) -> None:
        self.written: list[bytes] = []
        self.closed = False

    def write(self, data: bytes | bytearray | memoryview) -> None:
        self.written.append(bytes(data))

    def close(self) -> None:
        self.closed = True

    def abort(self) -> None:
        self.closed = True


def test_one_turn_of_the_loop_is_one_write() -> None:
    async def answer() -> None:
        socket = Socket()
        gathering = Gathering(socket, asyncio.get_running_loop())
        gathering.write(b"head ")
        gathering.write(b"body")
        assert socket.written == []
        await asyncio.sleep(0)
        assert socket.written == [b"head body"]
        gathering.write(b"last")
        gathering.close()
        assert (socket.written[1:], socket.closed) == ([b"last"], True)
        await asyncio.sleep(0)
        assert len(socket.written) == 2

    asyncio.run(answer())


def test_what_is_aborted_is_not_sent() -> None:
    async def answer() -> None:
        socket = Socket()
        gathering = Gathering(socket, asyncio.get_running_loop())
        gathering.write(b"head")
        gathering.abort()
        await asyncio.sleep(0)
        assert (socket.written, socket.closed) == ([], True)

    asyncio.run(answer())

"""A worker at a WebSocket port: the loop owns the sockets, a thread for each connection carries out its messages.

Nobody is upgraded without a token, which stands in a header. What has come in and is not carried out is bounded by
the client's credit; what goes out waits for the client to read it, up to a deadline.
"""

import asyncio
import json
import queue
import signal
import socket
import ssl
import threading
import time
from collections.abc import Callable
from concurrent.futures import CancelledError, TimeoutError

import structlog
import torch
from websockets.asyncio.server import Server, ServerConnection, serve
from websockets.exceptions import ConnectionClosed
from websockets.http11 import Request, Response

from shoal.core.errors import Unauthorised
from shoal.remote.host import Host
from shoal.remote.reception import Reception

READ_SECONDS = 60.0
"""For a client to read an answer."""
CLOSE_SECONDS = 2.0
PING_SECONDS = 20.0
TRY_AGAIN, TOO_MUCH, NOT_OURS = 1013, 1009, 1003
"""Codes of RFC 6455 with which a connection is closed."""

log = structlog.get_logger()


def run(host: Host, listener: socket.socket, context: ssl.SSLContext | None, ready: Callable[[], None]) -> None:
    """Serve a worker at a listening socket until SIGTERM or SIGINT; `ready` is called once it does."""
    asyncio.run(_run(host, listener, context, ready))


async def _run(host: Host, listener: socket.socket, context: ssl.SSLContext | None, ready: Callable[[], None]) -> None:
    over = asyncio.Event()
    loop = asyncio.get_running_loop()
    for each in (signal.SIGINT, signal.SIGTERM):
        loop.add_signal_handler(each, over.set)
    async with Served(host, listener, context):
        ready()
        await over.wait()


class Served:
    """A worker at a listening socket, for as long as the context lasts."""

    def __init__(self, host: Host, listener: socket.socket, context: ssl.SSLContext | None = None) -> None:
        self._host = host
        self._listener = listener
        self._context = context
        self._server: Server | None = None
        self._sweeping: asyncio.Task[None] | None = None

    async def __aenter__(self) -> "Served":
        self._server = await serve(
            self._connected,
            sock=self._listener,
            ssl=self._context,
            process_request=self._admitted,
            compression=None,
            max_size=self._host.limits.frame,
            ping_interval=PING_SECONDS,
            ping_timeout=PING_SECONDS * 3,
            close_timeout=CLOSE_SECONDS,
            server_header=None,
        )
        self._sweeping = asyncio.create_task(self._sweep())
        return self

    async def __aexit__(self, *_: object) -> None:
        assert self._server is not None
        assert self._sweeping is not None
        self._sweeping.cancel()
        self._server.close()
        await self._server.wait_closed()

    async def _sweep(self) -> None:
        while True:
            await asyncio.sleep(max(0.05, self._host.limits.lease / 4))
            self._host.sweep(time.monotonic())

    def _admitted(self, connection: ServerConnection, request: Request) -> Response | None:
        kind, _, token = request.headers.get("Authorization", "").partition(" ")
        assert self._server is not None
        if len(self._server.connections) > 2 * self._host.limits.clients:  # a client may have an old one that hangs
            return connection.respond(503, "too many connections")
        try:
            if kind.lower() != "bearer" or not token:
                raise Unauthorised("no token came with the call", "give the one that the worker's owner has for you")
            connection.username = self._host.admit(token)
        except Unauthorised as error:
            log.warning("refused", address=str(connection.remote_address), problem=error.problem)
            return connection.respond(401, json.dumps({"code": error.code, "problem": error.problem, "fix": error.fix}))
        return None

    async def _connected(self, connection: ServerConnection) -> None:
        visited = _Connection(self._host, connection, asyncio.get_running_loop())
        await visited.read()


class _Connection:
    """One connection: what comes in waits in a queue for the thread that carries it out."""

    def __init__(self, host: Host, connection: ServerConnection, loop: asyncio.AbstractEventLoop) -> None:
        self._connection = connection
        self._loop = loop
        self._log = log.bind(person=connection.username, address=str(connection.remote_address))
        self._most = host.limits.window_bytes + 2 * host.limits.frame
        self._waiting = 0
        self._threads = torch.get_num_threads()
        self._inbox: queue.SimpleQueue[bytes | None] = queue.SimpleQueue()
        self._reception = Reception(host, connection.username, self._say)
        threading.Thread(target=self._carry_out, name="visit", daemon=True).start()

    async def read(self) -> None:
        """Take messages until the connection ends."""
        try:
            async for message in self._connection:
                if isinstance(message, str):
                    await self._connection.close(NOT_OURS, "text, where bytes belong")
                    break
                self._waiting += len(message)
                if self._waiting > self._most:
                    await self._connection.close(TOO_MUCH, "more than the credit allows")
                    break
                self._inbox.put(message)
        except ConnectionClosed:
            pass  # what it brought is carried out, then its session waits for another
        finally:
            self._inbox.put(None)

    def _carry_out(self) -> None:
        self._log.info("came")
        torch.set_num_threads(self._threads)  # a setting of each thread
        while (message := self._inbox.get()) is not None:
            self._waiting -= len(message)
            self._reception.take(message)
            if self._reception.over:
                self._soon(self._connection.close())
                break
        self._reception.lost()
        self._log.info("gone", for_good=self._reception.over)

    def _say(self, data: bytes) -> None:
        self._soon(self._connection.send(data))

    def _soon(self, doing: "asyncio.coroutines.Coroutine[object, object, object]") -> None:  # type: ignore[name-defined]
        try:
            asyncio.run_coroutine_threadsafe(doing, self._loop).result(READ_SECONDS)
        except TimeoutError:
            self._loop.call_soon_threadsafe(self._connection.transport.abort)
        except (ConnectionClosed, CancelledError, RuntimeError):
            doing.close()  # the connection or the loop is gone, and the session waits for another connection

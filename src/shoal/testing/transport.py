"""Talking to a coordinator without a port: an ASGI application behind httpx, on a thread of its own."""

import asyncio
import queue
import threading
from collections.abc import Awaitable, Callable, Iterator, MutableMapping
from concurrent.futures import Future
from types import TracebackType
from typing import Any, Self, TypeAlias

import httpx

Message: TypeAlias = MutableMapping[str, Any]
App: TypeAlias = Callable[
    [Message, Callable[[], Awaitable[Message]], Callable[[Message], Awaitable[None]]], Awaitable[None]
]

CLOSE_SECONDS = 10.0
"""The longest time that an application may take to start, and to end."""


class InMemoryTransport(httpx.BaseTransport):
    """Serves an ASGI application to callers in any number of threads, its lifespan included.

    Bodies are streamed in both directions, and a request may be held: a read timeout counts as over a socket. One
    transport serves many connections; whoever made it closes it, which answers what is under way with a
    TransportError, ends the application and its thread.
    """

    def __init__(self, app: App) -> None:
        self._app = app
        self._loop = asyncio.new_event_loop()
        self._requests: set[asyncio.Task[None]] = set()
        self._closed = False
        self._thread = threading.Thread(target=self._loop.run_forever, name="in-memory-transport", daemon=True)
        self._thread.start()
        self._lifespan = _Lifespan(app)
        try:
            self._on_loop(self._lifespan.start())
        except BaseException:
            self._end()
            raise

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None = None,
        error: BaseException | None = None,
        trace: TracebackType | None = None,
    ) -> None:
        self.close()

    def handle_request(self, request: httpx.Request) -> httpx.Response:
        """Hand one request to the application; an exception that it raises before it answers is raised here."""
        if self._closed:
            raise httpx.ConnectError("the in-memory transport is closed", request=request)
        exchange = _Exchange(request, self._loop)
        asyncio.run_coroutine_threadsafe(self._start(exchange), self._loop)
        return exchange.response()

    async def _start(self, exchange: "_Exchange") -> None:
        task = asyncio.ensure_future(exchange.run(self._app))
        self._requests.add(task)
        task.add_done_callback(self._requests.discard)

    def close(self) -> None:
        """End the application and its thread; harmless when repeated."""
        if not self._closed:
            self._closed = True
            try:
                self._on_loop(self._stop())
            finally:
                self._end()

    async def _stop(self) -> None:
        for task in list(self._requests):
            task.cancel()
        await asyncio.gather(*self._requests, return_exceptions=True)
        await self._lifespan.stop()
        await self._loop.shutdown_asyncgens()
        await self._loop.shutdown_default_executor()

    def _end(self) -> None:
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join(CLOSE_SECONDS)
        self._loop.close()

    def _on_loop(self, work: Any) -> None:
        future: Future[None] = asyncio.run_coroutine_threadsafe(work, self._loop)
        future.result(CLOSE_SECONDS)


class _Lifespan:
    """The application's start and end, as ASGI tells them."""

    def __init__(self, app: App) -> None:
        self._app = app
        self._told: asyncio.Queue[Message] = asyncio.Queue()
        self._answers: asyncio.Queue[Message] = asyncio.Queue()
        self._task: asyncio.Future[None] | None = None

    async def start(self) -> None:
        self._task = asyncio.ensure_future(self._app(_LIFESPAN, self._told.get, self._answers.put))
        await self._tell("lifespan.startup")

    async def stop(self) -> None:
        await self._tell("lifespan.shutdown")
        if self._task is not None:
            await self._task

    async def _tell(self, kind: str) -> None:
        await self._told.put({"type": kind})
        assert self._task is not None
        answer = asyncio.ensure_future(self._answers.get())
        await asyncio.wait((answer, self._task), return_when=asyncio.FIRST_COMPLETED)
        if not answer.done():
            answer.cancel()
            self._task.result()
            raise RuntimeError(f"the application ended without an answer to {kind}")
        if answer.result()["type"] != f"{kind}.complete":
            raise RuntimeError(f"{kind} failed: {answer.result().get('message', '')}")


_LIFESPAN: Message = {"type": "lifespan", "asgi": {"version": "3.0", "spec_version": "2.0"}, "state": {}}


class _Exchange:
    """One request and its response. The caller's thread waits on a queue for what the loop's thread puts there."""

    def __init__(self, request: httpx.Request, loop: asyncio.AbstractEventLoop) -> None:
        self._request = request
        self._loop = loop
        self._timeout: float | None = request.extensions.get("timeout", {}).get("read")
        assert isinstance(request.stream, httpx.SyncByteStream)
        self._body: Iterator[bytes] | None = iter(request.stream)
        self._gone = asyncio.Event()
        self._arrived: queue.SimpleQueue[Message | Exception] = queue.SimpleQueue()

    async def run(self, app: App) -> None:
        try:
            await app(self._scope(), self._receive, self._send)
            self._arrived.put(httpx.RemoteProtocolError("the application ended its answer too early"))
        except asyncio.CancelledError:
            self._arrived.put(httpx.ReadError("the in-memory transport was closed", request=self._request))
        except Exception as error:  # noqa: BLE001  (raised again, in the thread that called)
            self._arrived.put(error)

    def _scope(self) -> Message:
        url = self._request.url
        return {
            "type": "http",
            "asgi": {"version": "3.0"},
            "http_version": "1.1",
            "method": self._request.method,
            "headers": [(name.lower(), value) for name, value in self._request.headers.raw],
            "scheme": url.scheme,
            "path": url.path,
            "raw_path": url.raw_path.split(b"?")[0],
            "query_string": url.query,
            "server": (url.host, url.port),
            "client": ("127.0.0.1", 0),
            "root_path": "",
            "state": {},
        }

    async def _receive(self) -> Message:
        if self._body is None:
            await self._gone.wait()
            return {"type": "http.disconnect"}
        # the caller's iterator may block, on a file or on purpose
        piece = await asyncio.to_thread(next, self._body, None)
        if piece is None:
            self._body = None
        return {"type": "http.request", "body": piece or b"", "more_body": piece is not None}

    async def _send(self, message: Message) -> None:
        self._arrived.put(message)

    def response(self) -> httpx.Response:
        start = self._next()
        return httpx.Response(start["status"], headers=start.get("headers", []), stream=_Answer(self))

    def pieces(self) -> Iterator[bytes]:
        while True:
            message = self._next()
            if body := message.get("body"):
                yield body
            if not message.get("more_body", False):
                return

    def leave(self) -> None:
        if not self._loop.is_closed():
            self._loop.call_soon_threadsafe(self._gone.set)

    def _next(self) -> Message:
        try:
            arrived = self._arrived.get(timeout=self._timeout)
        except queue.Empty:
            self.leave()
            raise httpx.ReadTimeout(f"no answer in {self._timeout} s", request=self._request) from None
        if isinstance(arrived, Exception):
            raise arrived
        return arrived


class _Answer(httpx.SyncByteStream):
    def __init__(self, exchange: _Exchange) -> None:
        self._exchange = exchange

    def __iter__(self) -> Iterator[bytes]:
        return self._exchange.pieces()

    def close(self) -> None:
        self._exchange.leave()

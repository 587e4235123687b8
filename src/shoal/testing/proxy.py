"""A TCP proxy that misbehaves on purpose, in a thread of this process."""

import asyncio
import random
import threading
from collections import Counter
from collections.abc import Coroutine
from contextlib import suppress
from types import TracebackType
from typing import Any, Self
from urllib.parse import urlsplit

PIECE = 1 << 16
CLOSE_SECONDS = 10.0


class FlakyProxy:
    """Forwards connections made to `url` to `target`, but for the shares (0 to 1) of what callers send.

    Of every piece that a caller sends, `cut`: half of it is forwarded, then the connection breaks. `swallow`: it is
    forwarded, and the connection breaks once the server has answered, before the caller hears of it. `trickle`: it is
    forwarded in `bits` parts, a `pause` in seconds after each. `happened` counts what did.
    """

    def __init__(
        self,
        target: str,
        seed: int,
        *,
        cut: float = 0.0,
        swallow: float = 0.0,
        trickle: float = 0.0,
        bits: int = 8,
        pause: float = 0.01,
    ) -> None:
        address = urlsplit(target)
        self.happened: Counter[str] = Counter()
        self._target = (address.hostname or "127.0.0.1", address.port or 80)
        self._shares = {"cut": cut, "swallow": swallow, "trickle": trickle}
        self._bits = bits
        self._pause = pause
        self._random = random.Random(seed)  # noqa: S311  (no secret)
        self._connections: set[asyncio.Task[None]] = set()
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, name="flaky-proxy", daemon=True)
        self._thread.start()
        self._server = self._on_loop(asyncio.start_server(self._serve, "127.0.0.1", 0))
        self.url = f"http://127.0.0.1:{self._server.sockets[0].getsockname()[1]}"

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None = None,
        error: BaseException | None = None,
        trace: TracebackType | None = None,
    ) -> None:
        self.close()

    def close(self) -> None:
        """Break every connection and end the thread; harmless when repeated."""
        if not self._loop.is_closed():
            self._on_loop(self._stop())
            self._loop.call_soon_threadsafe(self._loop.stop)
            self._thread.join(CLOSE_SECONDS)
            self._loop.close()

    async def _stop(self) -> None:
        self._server.close()
        for connection in list(self._connections):
            connection.cancel()
        await asyncio.gather(*self._connections, return_exceptions=True)

    def _on_loop(self, work: Coroutine[Any, Any, Any]) -> Any:
        return asyncio.run_coroutine_threadsafe(work, self._loop).result(CLOSE_SECONDS)

    async def _serve(self, caller: asyncio.StreamReader, answers: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        self._connections.add(task)
        try:
            server, requests = await asyncio.open_connection(*self._target)
            await self._between(_Line(caller, answers), _Line(server, requests))
        except OSError:
            answers.close()  # the server is away: to the caller it looks like that too
        finally:
            self._connections.discard(task)

    async def _between(self, caller: "_Line", server: "_Line") -> None:
        broken = asyncio.Event()
        pumps = [
            asyncio.ensure_future(self._up(caller, server, broken)),
            asyncio.ensure_future(_down(server, caller, broken)),
        ]
        try:
            await asyncio.wait(pumps, return_when=asyncio.FIRST_COMPLETED)
        finally:
            for pump in pumps:
                pump.cancel()
            await asyncio.gather(*pumps, return_exceptions=True)
            caller.abort()
            server.abort()

    async def _up(self, caller: "_Line", server: "_Line", broken: asyncio.Event) -> None:
        while data := await caller.reader.read(PIECE):
            match self._fault():
                case "cut":
                    await server.send(data[: len(data) // 2])
                    return
                case "swallow":
                    broken.set()
                    await server.send(data)
                case "trickle":
                    await self._trickle(data, server)
                case _:
                    await server.send(data)

    async def _trickle(self, data: bytes, server: "_Line") -> None:
        size = max(1, -(-len(data) // self._bits))
        for start in range(0, len(data), size):
            await server.send(data[start : start + size])
            await asyncio.sleep(self._pause)

    def _fault(self) -> str:
        drawn = next((name for name, share in self._shares.items() if self._random.random() < share), "")
        if drawn:
            self.happened[drawn] += 1
        return drawn


class _Line:
    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.reader = reader
        self._writer = writer

    async def send(self, data: bytes) -> None:
        self._writer.write(data)
        await self._writer.drain()

    def abort(self) -> None:
        with suppress(OSError):
            self._writer.transport.abort()


async def _down(server: _Line, caller: _Line, broken: asyncio.Event) -> None:
    while (data := await server.reader.read(PIECE)) and not broken.is_set():
        await caller.send(data)

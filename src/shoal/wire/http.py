"""One connection to a coordinator over HTTP: typed errors, deadlines, and counters of what crossed the socket."""

import time
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from types import TracebackType
from typing import Any, Self, TypeVar

import httpcore
import httpx

from shoal.core.errors import Unreachable
from shoal.wire.answers import address, bearer, read, refusal, seconds, whole
from shoal.wire.downloads import fields, pieces, resumed
from shoal.wire.messages import HELD, PROTOCOL, SPOKEN, encode
from shoal.wire.route import Proxy, proxy_for, trust
from shoal.wire.source import Source

T = TypeVar("T")

CONNECT_SECONDS = 5.0
READ_SECONDS = 60.0
CONNECTIONS = 4
UPLOAD_BYTES = 1 << 18
"""Bytes of a file that are read and sent at once."""
READ_BYTES = 1 << 18
"""Bytes that are taken from a socket at once; httpcore's own 64 KiB cost a large download twice the CPU time."""


@dataclass(slots=True)
class Traffic:
    """What crossed the sockets so far: bytes with headers (TLS apart), and seconds not held on purpose."""

    bytes_up: int = 0
    bytes_down: int = 0
    seconds: float = 0.0


class _CountingStream(httpcore.NetworkStream):
    def __init__(self, stream: httpcore.NetworkStream, traffic: Traffic) -> None:
        self._stream = stream
        self._traffic = traffic

    def read(self, max_bytes: int, timeout: float | None = None) -> bytes:
        data = self._stream.read(max(max_bytes, READ_BYTES), timeout)
        self._traffic.bytes_down += len(data)
        return data

    def write(self, buffer: bytes, timeout: float | None = None) -> None:
        self._stream.write(buffer, timeout)
        self._traffic.bytes_up += len(buffer)

    def close(self) -> None:
        self._stream.close()

    def start_tls(
        self, ssl_context: Any, server_hostname: str | None = None, timeout: float | None = None
    ) -> httpcore.NetworkStream:
        return _CountingStream(self._stream.start_tls(ssl_context, server_hostname, timeout), self._traffic)

    def get_extra_info(self, info: str) -> Any:
        return self._stream.get_extra_info(info)


class _CountingBackend(httpcore.NetworkBackend):
    def __init__(self, traffic: Traffic) -> None:
        self._backend = httpcore.SyncBackend()
        self._traffic = traffic

    def connect_tcp(
        self,
        host: str,
        port: int,
        timeout: float | None = None,
        local_address: str | None = None,
        socket_options: Iterable[httpcore.SOCKET_OPTION] | None = None,
    ) -> httpcore.NetworkStream:
        stream = self._backend.connect_tcp(host, port, timeout, local_address, socket_options)
        return _CountingStream(stream, self._traffic)


class _Body(httpx.SyncByteStream):
    def __init__(self, stream: Iterable[bytes], close: Callable[[], None]) -> None:
        self._stream = stream
        self._close = close

    def __iter__(self) -> Iterator[bytes]:
        with _translated():
            yield from self._stream

    def close(self) -> None:
        self._close()


class _translated:  # noqa: N801  (used like a function)
    def __enter__(self) -> None:
        return None

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if isinstance(error, httpcore.TimeoutException):
            raise httpx.TimeoutException(str(error) or type(error).__name__) from error
        if isinstance(error, httpcore.NetworkError | httpcore.ProtocolError | httpcore.ProxyError):
            raise httpx.TransportError(str(error) or type(error).__name__) from error


class SocketTransport(httpx.BaseTransport):
    """httpx over real sockets whose bytes are counted.

    httpx offers no public way to its network backend, so this stands where its own HTTPTransport would.
    """

    def __init__(self, traffic: Traffic, proxy: Proxy | None = None, ca: Path | str | None = None) -> None:
        trusted, backend = trust(ca), _CountingBackend(traffic)
        if proxy is None:
            self._pool = httpcore.ConnectionPool(
                ssl_context=trusted, network_backend=backend, max_connections=CONNECTIONS
            )
        else:
            self._pool = httpcore.HTTPProxy(
                proxy.url,
                proxy.auth,
                ssl_context=trusted,
                proxy_ssl_context=trusted if proxy.url.startswith("https:") else None,
                network_backend=backend,
                max_connections=CONNECTIONS,
            )

    def handle_request(self, request: httpx.Request) -> httpx.Response:
        """Send one request."""
        url = httpcore.URL(
            scheme=request.url.raw_scheme, host=request.url.raw_host, port=request.url.port, target=request.url.raw_path
        )
        inner = httpcore.Request(
            request.method, url, headers=request.headers.raw, content=request.stream, extensions=request.extensions
        )
        with _translated():
            response = self._pool.handle_request(inner)
        body = _Body(response.stream, response.close)  # type: ignore[arg-type]
        return httpx.Response(response.status, headers=response.headers, stream=body, extensions=response.extensions)

    def close(self) -> None:
        """Close every connection."""
        self._pool.close()


class Connection:
    """A caller's line to one coordinator.

    Every call has a deadline. An answer other than 2xx raises the error that its code names (core.errors), no answer
    raises Unreachable, one that is no coordinator's NotACoordinator. Nothing is inflated but blobs, under their cap.
    Raises ConfigurationError for an address or a token that cannot be one.

    Proxies and authorities are those of the environment (`wire.route`); `ca` is a further bundle of
    certificates to trust. `transport` replaces the network in tests; it stays open when the connection closes.
    """

    def __init__(
        self,
        url: str,
        token: str | None = None,
        *,
        ca: Path | str | None = None,
        transport: httpx.BaseTransport | None = None,
    ) -> None:
        self.url = address(url)
        self.traffic = Traffic()
        self._proxy = proxy_for(self.url) if transport is None else None
        headers = {"Accept": "*/*", "Accept-Encoding": "identity", "User-Agent": "shoal", SPOKEN: str(PROTOCOL)}
        if token is not None:
            headers["Authorization"] = bearer(token)
        self._sockets = SocketTransport(self.traffic, self._proxy, ca) if transport is None else None
        self._client = httpx.Client(
            base_url=self.url,
            headers=headers,
            transport=self._sockets or transport,
            timeout=httpx.Timeout(READ_SECONDS, connect=CONNECT_SECONDS),
        )

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def authorise(self, token: str) -> None:
        """Use another bearer token from now on."""
        self._client.headers["Authorization"] = bearer(token)

    def close(self) -> None:
        """Close the sockets."""
        if self._sockets is not None:
            self._sockets.close()

    def call(self, method: str, path: str, message: object | None, reply: type[T], *, wait: float = 0.0) -> T:
        """Send a message (or none) and read the reply; `wait` is how long the server may hold the request."""
        content = None if message is None else encode(message)
        headers = {} if content is None else {"Content-Type": "application/json"}
        return read(self._send(method, path, content, headers, wait), reply, self.url)

    def upload(self, path: str, body: bytes | Iterator[bytes], reply: type[T]) -> T:
        """Send bytes and read the reply."""
        headers = {"Content-Type": "application/octet-stream"}
        return read(self._send("POST", path, body, headers), reply, self.url)

    def upload_file(self, path: str, body: Source, reply: type[T]) -> T:
        """Send what lies on a disk, of which little is in memory at once, and read the reply."""
        headers = {"Content-Type": "application/octet-stream", "Content-Length": str(body.size)}
        with body.open() as file:
            parts = iter(partial(file.read, UPLOAD_BYTES), b"")
            return read(self._send("POST", path, parts, headers), reply, self.url)

    def transfer(self, method: str, path: str, content: bytes, headers: dict[str, str]) -> httpx.Headers:
        """Send bytes and return the head of an answer that says all in it."""
        return self._exchange(method, path, content, headers)[0]

    def download(self, digest: str, most: int) -> bytes:
        """Return a blob of at most `most` bytes."""
        return b"".join(self.stream(digest, most))

    def stream(self, digest: str, most: int, start: int = 0) -> Iterator[bytes]:
        """Yield a blob in pieces from an offset on, inflated; goes on by itself when the line breaks.

        Raises BadRequest once the blob is longer than `most` bytes, Unreachable when nothing comes any more.
        """
        return resumed(lambda at: self._pieces(digest, most, at), start)

    def _pieces(self, digest: str, most: int, start: int) -> Iterator[bytes]:
        started = time.perf_counter()
        try:
            with self._client.stream("GET", f"/v1/blobs/{digest}", headers=fields(digest, start)) as response:
                if response.status_code not in (httpx.codes.OK, httpx.codes.PARTIAL_CONTENT):
                    raise refusal(response, whole(response), self.url)
                yield from pieces(response, digest, start, most)
        except httpx.TransportError as error:
            raise self._unreachable("GET", f"/v1/blobs/{digest}", error) from error
        finally:
            self.traffic.seconds += time.perf_counter() - started

    def _send(
        self,
        method: str,
        path: str,
        content: bytes | Iterator[bytes] | None,
        headers: dict[str, str],
        wait: float = 0.0,
    ) -> bytes:
        return self._exchange(method, path, content, headers, wait)[1]

    def _exchange(
        self,
        method: str,
        path: str,
        content: bytes | Iterator[bytes] | None,
        headers: dict[str, str],
        wait: float = 0.0,
    ) -> tuple[httpx.Headers, bytes]:
        started = time.perf_counter()
        held = 0.0
        timeout = httpx.Timeout(READ_SECONDS + wait, connect=CONNECT_SECONDS)
        try:
            with self._client.stream(method, path, content=content, headers=headers, timeout=timeout) as response:
                held = seconds(response.headers.get(HELD, "0"))
                data = whole(response)
        except httpx.TransportError as error:
            raise self._unreachable(method, path, error) from error
        finally:
            self.traffic.seconds += max(0.0, time.perf_counter() - started - held)
        if not response.is_success:
            raise refusal(response, data, self.url)
        return response.headers, data

    def _unreachable(self, method: str, path: str, error: Exception) -> Unreachable:
        way = "" if self._proxy is None else f" through the proxy {self._proxy.url}"
        return Unreachable(
            f"{method} {self.url}{path} got no answer{way} ({error})",
            "check that the coordinator runs and the address is right",
        )

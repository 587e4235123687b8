"""One connection to a coordinator over HTTP: signed calls, typed errors, deadlines, counters of what crossed."""

import hashlib
import secrets
import time
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from types import TracebackType
from typing import Any, Self, TypeAlias, TypeVar

import httpcore
import httpx

from shoal.core.errors import BadSignature, Unreachable
from shoal.wire import tracing
from shoal.wire.answers import address, bearer, read, refusal, seconds, whole
from shoal.wire.digests import digest_field
from shoal.wire.downloads import fields, pieces, resumed
from shoal.wire.messages import HELD, PROTOCOL, SPOKEN, encode
from shoal.wire.route import Proxy, proxy_for, trust
from shoal.wire.signing import EMPTY_DIGEST, SigningKey, sign
from shoal.wire.source import Source
from shoal.wire.watching import frames

T = TypeVar("T")
Content: TypeAlias = bytes | Source | Iterator[bytes] | None
"""A body: bytes, what lies on a disk of which little is in memory, pieces that can be sent only once, or none."""

CONNECT_SECONDS = 5.0
READ_SECONDS = 60.0
CONNECTIONS = 4
TRIES = 4
"""How often a call is signed that is refused: a line that doubles calls lets the second one look like a replay."""
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

    People give a `token`, devices a `key`, which signs every call anew (`wire.signing`); `clock` tells when. A clock
    that is wrong is corrected by what the coordinator answers.

    Proxies and authorities are those of the environment (`wire.route`); `ca` is a further bundle of
    certificates to trust. `transport` replaces the network in tests; it stays open when the connection closes.
    """

    def __init__(
        self,
        url: str,
        token: str | None = None,
        *,
        key: SigningKey | None = None,
        clock: Callable[[], float] = time.time,
        ca: Path | str | None = None,
        transport: httpx.BaseTransport | None = None,
    ) -> None:
        self.url = address(url)
        self._key = key
        self._clock = clock
        self._behind = 0.0
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

    def close(self) -> None:
        """Close the sockets."""
        if self._sockets is not None:
            self._sockets.close()

    def call(
        self,
        method: str,
        path: str,
        message: object | None,
        reply: type[T],
        *,
        wait: float = 0.0,
        token: str | None = None,
    ) -> T:
        """Send a message (or none) and read the reply; `wait` is how long the server may hold the request.

        `token` is shown in this call only.
        """
        content = None if message is None else encode(message)
        headers = {} if content is None else {"Content-Type": "application/json"}
        if token is not None:
            headers["Authorization"] = bearer(token)
        return read(self._exchange(method, path, content, headers, wait)[1], reply, self.url)

    def upload(self, path: str, body: bytes | Iterator[bytes], reply: type[T]) -> T:
        """Send bytes and read the reply; an iterator only where calls are not signed."""
        headers = {"Content-Type": "application/octet-stream"}
        return read(self._exchange("POST", path, body, headers)[1], reply, self.url)

    def upload_file(self, path: str, body: Source, reply: type[T]) -> T:
        """Send what lies on a disk, of which little is in memory at once, and read the reply."""
        headers = {"Content-Type": "application/octet-stream", "Content-Length": str(body.size)}
        return read(self._exchange("POST", path, body, headers)[1], reply, self.url)

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
        with tracing.span("download", digest=digest):
            yield from resumed(lambda at: self._from(digest, most, at), start)

    def events(self) -> Iterator[tuple[str, bytes]]:
        """Yield the coordinator's server-sent events, as (name, data), until it ends the stream.

        Raises Unreachable when the line breaks or nothing comes for `READ_SECONDS`: beats come more often.
        """
        path = "/v1/events"
        try:
            with self._client.stream("GET", path, timeout=httpx.Timeout(READ_SECONDS, connect=CONNECT_SECONDS)) as got:
                if not got.is_success:
                    raise refusal(got, whole(got), self.url)
                yield from frames(got.iter_raw())
        except httpx.TransportError as error:
            raise self._unreachable("GET", path, error) from error

    def _from(self, digest: str, most: int, start: int) -> Iterator[bytes]:
        path = f"/v1/blobs/{digest}"
        try:
            yield from self._pieces(digest, most, start, self._signed("GET", path, EMPTY_DIGEST))
        except BadSignature as error:  # it comes before the first piece
            yield from self._pieces(digest, most, start, self._signed_anew("GET", path, EMPTY_DIGEST, error))

    def _pieces(self, digest: str, most: int, start: int, signed: dict[str, str]) -> Iterator[bytes]:
        path, headers = f"/v1/blobs/{digest}", fields(digest, start) | signed | dict(tracing.carried())
        started = time.perf_counter()
        try:
            with self._client.stream("GET", path, headers=headers) as response:
                if response.status_code not in (httpx.codes.OK, httpx.codes.PARTIAL_CONTENT):
                    raise refusal(response, whole(response), self.url)
                yield from pieces(response, digest, start, most)
        except httpx.TransportError as error:
            raise self._unreachable("GET", path, error) from error
        finally:
            self.traffic.seconds += time.perf_counter() - started

    def _exchange(
        self, method: str, path: str, content: Content, headers: dict[str, str], wait: float = 0.0
    ) -> tuple[httpx.Headers, bytes]:
        digest = "" if self._key is None else _digest(content)
        signed = self._signed(method, path, digest)
        for _ in range(TRIES - 1):
            try:
                return self._once(method, path, content, headers | signed, wait)
            except BadSignature as error:
                signed = self._signed_anew(method, path, digest, error)
        return self._once(method, path, content, headers | signed, wait)

    def _signed(self, method: str, path: str, digest: str, created: float | None = None) -> dict[str, str]:
        if self._key is None:
            return {}
        when = self._clock() + self._behind if created is None else created
        target = httpx.URL(path).raw_path.decode("ascii")
        return sign(self._key, method, target, digest, when, secrets.token_urlsafe(16))

    def _signed_anew(self, method: str, path: str, digest: str, error: BadSignature) -> dict[str, str]:
        """Sign a refused call by the coordinator's own clock, and remember how far ours is behind."""
        if self._key is None or error.server_time is None:
            raise error
        self._behind = error.server_time - self._clock()
        return self._signed(method, path, digest, error.server_time)

    def _once(
        self, method: str, path: str, content: Content, headers: dict[str, str], wait: float
    ) -> tuple[httpx.Headers, bytes]:
        headers = headers | dict(tracing.carried())
        started = time.perf_counter()
        held = 0.0
        timeout = httpx.Timeout(READ_SECONDS + wait, connect=CONNECT_SECONDS)
        body = content if content is None or isinstance(content, bytes | Iterator) else _read(content)
        try:
            with self._client.stream(method, path, content=body, headers=headers, timeout=timeout) as response:
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


def _read(source: Source) -> Iterator[bytes]:
    with source.open() as file:
        yield from iter(partial(file.read, UPLOAD_BYTES), b"")


def _digest(content: Content) -> str:
    if content is None or isinstance(content, bytes):
        return digest_field(hashlib.sha256(content or b"").digest())
    # what an iterator yields is not known before it was sent, so no signed call has one
    assert not isinstance(content, Iterator)
    digest = hashlib.sha256()
    for piece in _read(content):
        digest.update(piece)
    return digest_field(digest.digest())

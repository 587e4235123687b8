"""Connecting to a worker behind a WebSocket."""

import asyncio
from pathlib import Path

from shoal.remote.dialling import Address
from shoal.remote.session import Patience, Session
from shoal.remote.worker import Worker


def connect(
    url: str,
    *,
    token: str,
    ca: Path | str | None = None,
    fingerprint: str | None = None,
    timeout: float = 600.0,
    line_timeout: float = 30.0,
) -> Worker:
    """Return the handle of the worker at `ws://HOST:PORT` or `wss://HOST:PORT`.

    With TLS its certificate is checked against the usual authorities and those of `ca`; `fingerprint`, the SHA-256 of
    the certificate, takes that one alone instead. `timeout` is how long to wait for an answer, in seconds;
    `line_timeout` for a connection, the first one or another after a loss. Raises Unauthorised, WrongCertificate,
    Unreachable.
    """
    address = Address(url, token, ca, fingerprint)
    return Worker(Session(address.dial, patience=Patience(timeout, line_timeout)))


async def connect_async(
    url: str,
    *,
    token: str,
    ca: Path | str | None = None,
    fingerprint: str | None = None,
    timeout: float = 600.0,  # noqa: ASYNC109  (of each later answer)
    line_timeout: float = 30.0,
) -> Worker:
    """Connect as `connect` does while the event loop goes on; see also `shoal.get_async`."""
    return await asyncio.to_thread(
        connect, url, token=token, ca=ca, fingerprint=fingerprint, timeout=timeout, line_timeout=line_timeout
    )

"""The line to a worker behind a WebSocket: TLS is verified, or pinned to one certificate, before the token is sent."""

import hashlib
import json
import logging
import ssl
import threading
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from websockets.exceptions import ConnectionClosed, InvalidHandshake, InvalidStatus
from websockets.sync.client import ClientConnection, connect

from shoal.core.errors import ConfigurationError, Unauthorised, WrongCertificate, from_code
from shoal.remote.channel import Broken, Hear
from shoal.wire.route import proxy_for, trust

LARGEST = 16 << 20
"""Bytes of one message from a worker; larger tensors come in pieces."""
OPEN_SECONDS = 10.0
CLOSE_SECONDS = 2.0
PING_SECONDS = 20.0

_quiet = logging.getLogger("shoal.remote.line")
_quiet.setLevel(logging.CRITICAL)


@dataclass(frozen=True, slots=True)
class Address:
    """Where a worker is, and how to know it: by an authority, or by the SHA-256 of its certificate."""

    url: str
    token: str
    ca: Path | str | None = None
    fingerprint: str | None = None

    def __post_init__(self) -> None:
        parts = urlsplit(self.url)
        if parts.scheme not in ("ws", "wss") or not parts.hostname or "@" in parts.netloc or parts.query:
            raise ConfigurationError(
                f"the address {parts.scheme}://{parts.hostname or ''}", "give ws://HOST:PORT or wss://HOST:PORT"
            )
        if self.fingerprint is not None and parts.scheme != "wss":
            raise ConfigurationError("a fingerprint for a line without TLS", "give an address that begins with wss://")
        if self.fingerprint is not None and len(_hex(self.fingerprint)) != 64:
            raise ConfigurationError(
                f"the fingerprint {self.fingerprint[:80]!r}", "give the SHA-256 of the certificate, 64 digits in hex"
            )

    def dial(self, hear: Hear) -> "SocketChannel":
        """Open a line. Raises Broken, Unauthorised, WrongCertificate."""
        return SocketChannel(self, hear)


class SocketChannel:
    """A WebSocket; a thread hears what comes in."""

    def __init__(self, address: Address, hear: Hear) -> None:
        self._open = ExitStack()
        self._connection = self._open.enter_context(_opened(address))
        threading.Thread(target=_listen, args=(self._connection, hear), name="line", daemon=True).start()

    def send(self, data: bytes) -> None:
        """Send a message. Raises Broken."""
        try:
            self._connection.send(data)
        except (ConnectionClosed, OSError) as error:
            raise Broken from error

    def close(self) -> None:
        """Close the line."""
        self._open.close()


def _listen(connection: ClientConnection, hear: Hear) -> None:
    try:
        for message in connection:
            if isinstance(message, str):
                break
            hear(message)
    except (ConnectionClosed, OSError):
        pass  # the end is told below, whatever it is
    finally:
        hear(None)


class _Pinned(ssl.SSLContext):
    """Takes one certificate, whoever signed it, and looks before anything is said."""

    fingerprint = ""

    def wrap_socket(self, *args: Any, **kwargs: Any) -> ssl.SSLSocket:
        wrapped = super().wrap_socket(*args, **kwargs)
        shown = hashlib.sha256(wrapped.getpeercert(binary_form=True) or b"").hexdigest()
        if shown != self.fingerprint:
            wrapped.close()
            raise WrongCertificate(
                f"the worker shows a certificate with the fingerprint {shown}, not {self.fingerprint}",
                "ask its owner for the right one, by another way than this line",
            )
        return wrapped


def _context(address: Address) -> ssl.SSLContext | None:
    if not address.url.startswith("wss:"):
        return None
    if address.fingerprint is None:
        return trust(address.ca)
    pinned = _Pinned(ssl.PROTOCOL_TLS_CLIENT)
    pinned.check_hostname, pinned.verify_mode = False, ssl.CERT_NONE
    pinned.fingerprint = _hex(address.fingerprint)
    return pinned


def _hex(fingerprint: str) -> str:
    return fingerprint.lower().removeprefix("sha256:").replace(":", "").strip()


def _opened(address: Address) -> ClientConnection:
    proxy = proxy_for(address.url)
    try:
        return connect(
            address.url,
            ssl=_context(address),
            additional_headers={"Authorization": f"Bearer {address.token}"},
            compression=None,
            max_size=LARGEST,
            proxy=None if proxy is None else proxy.url,
            open_timeout=OPEN_SECONDS,
            close_timeout=CLOSE_SECONDS,
            ping_interval=PING_SECONDS,
            ping_timeout=PING_SECONDS * 3,
            logger=_quiet,
        )
    except ssl.SSLCertVerificationError as error:
        raise WrongCertificate(
            f"the worker's certificate is not trusted ({error.verify_message})",
            "give its authority (ca=), or pin it (fingerprint=)",
        ) from error
    except InvalidStatus as error:
        raise _refusal(error) from error
    except (OSError, InvalidHandshake, ConnectionClosed, TimeoutError) as error:
        raise Broken(str(error)) from error


def _refusal(error: InvalidStatus) -> Exception:
    response = error.response
    if response.status_code != Unauthorised.status:
        return Broken(f"status {response.status_code}")
    try:
        said = json.loads(response.body or b"")
        return from_code(str(said["code"]), str(said["problem"])[:500], str(said["fix"])[:500])
    except (ValueError, KeyError, TypeError):
        return Unauthorised("the worker, or something before it, refused the token", "ask its owner for one")

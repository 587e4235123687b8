"""The way from here to a coordinator: through which proxy, and whose certificates are trusted.

As other tools do: HTTP_PROXY, HTTPS_PROXY, ALL_PROXY and NO_PROXY name proxies, SSL_CERT_FILE and SSL_CERT_DIR replace
the authorities that are trusted. This machine's own addresses are never proxied.
"""

import ipaddress
import ssl
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import unquote, urlsplit, urlunsplit
from urllib.request import getproxies, proxy_bypass

import httpx

from shoal.core.errors import ConfigurationError


@dataclass(frozen=True, slots=True)
class Proxy:
    """A proxy's address without secrets, and the name and password that it wants, if any."""

    url: str
    auth: tuple[str, str] | None = None


def proxy_for(url: str) -> Proxy | None:
    """Return the proxy that the environment names for an address, or None. Raises ConfigurationError."""
    parts = urlsplit(url)
    host = parts.hostname or ""
    proxies = getproxies()
    found = proxies.get(parts.scheme) or proxies.get("all")
    if not found or _here(host) or proxy_bypass(parts.netloc.rpartition("@")[2]):
        return None
    return _parsed(found if "://" in found else f"http://{found}")


def _here(host: str) -> bool:
    if host == "localhost":
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


def _parsed(found: str) -> Proxy:
    parts = urlsplit(found)
    address = urlunsplit((parts.scheme, parts.netloc.rpartition("@")[2], "", "", ""))
    if parts.scheme not in ("http", "https") or not parts.hostname:
        raise ConfigurationError(
            f"the environment names the proxy {address!r}", "give one that speaks HTTP, as http://HOST:PORT"
        )
    auth = None if parts.username is None else (unquote(parts.username), unquote(parts.password or ""))
    return Proxy(address, auth)


def trust(ca: Path | str | None = None) -> ssl.SSLContext:
    """Return what certificates are checked with: the usual authorities, and those of a bundle in PEM form.

    Raises ConfigurationError when a bundle, `ca` or that of SSL_CERT_FILE, cannot be read.
    """
    try:
        trusted = httpx.create_ssl_context()
    except (OSError, ssl.SSLError) as error:
        raise ConfigurationError(
            f"SSL_CERT_FILE or SSL_CERT_DIR cannot be read ({error})", "correct the variable, or unset it"
        ) from error
    if ca is None:
        return trusted
    try:
        trusted.load_verify_locations(str(Path(ca).expanduser()))
    except (OSError, ssl.SSLError) as error:
        raise ConfigurationError(
            f"the CA bundle {ca} cannot be read ({error})", "give a file of certificates in PEM form"
        ) from error
    return trusted

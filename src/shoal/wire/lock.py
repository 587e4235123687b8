"""What a server's line is locked with: TLS, or nothing where nobody else listens or somebody asked for it."""

import hashlib
import ipaddress
import ssl
from dataclasses import dataclass
from pathlib import Path

from shoal.core.errors import ConfigurationError

_BEGIN, _END = "-----BEGIN CERTIFICATE-----", "-----END CERTIFICATE-----"


@dataclass(frozen=True, slots=True)
class Lock:
    """A certificate chain with its private key (PEM), or none; `open` lets the line leave this machine without."""

    cert: Path | None = None
    key: Path | None = None
    open: bool = False
    plain: str = "http"
    """How addresses begin without TLS; with it, an s follows. `--insecure-` and this is the option for `open`."""

    @property
    def scheme(self) -> str:
        """How addresses begin."""
        return self.plain if self.cert is None else f"{self.plain}s"

    def context(self) -> ssl.SSLContext | None:
        """Return what a listener takes for TLS, or None. Raises ConfigurationError."""
        return None if self.cert is None or self.key is None else _load(self.cert, self.key)

    def fingerprint(self) -> str | None:
        """Return the SHA-256 of the certificate in hex, by which clients may pin it, or None without one."""
        if self.cert is None:
            return None
        first = self.cert.read_text().partition(_END)[0] + _END
        return hashlib.sha256(ssl.PEM_cert_to_DER_cert(first[first.index(_BEGIN) :])).hexdigest()

    def check(self, host: str) -> None:
        """Raise ConfigurationError for a certificate that cannot be used, or an open line to other machines."""
        if (self.cert is None) != (self.key is None):
            raise ConfigurationError("a certificate without its key, or the other way about", "give --cert and --key")
        if self.cert is not None and self.key is not None:
            _load(self.cert, self.key)
        elif not self.open and not _is_here(host):
            raise ConfigurationError(
                f"listening on {host} without TLS, for other machines",
                f"give --cert and --key, or --insecure-{self.plain} behind a proxy that has them",
            )


def _load(cert: Path, key: Path) -> ssl.SSLContext:
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    try:
        context.load_cert_chain(cert, key)
    except (OSError, ssl.SSLError) as error:
        raise ConfigurationError(
            f"{cert} with {key} cannot be used for TLS ({error})", "give a certificate chain and its key as PEM files"
        ) from error
    return context


def _is_here(host: str) -> bool:
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"

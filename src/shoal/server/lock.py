"""What a coordinator's line is locked with: TLS, or nothing where nobody else listens or somebody asked for it."""

import ipaddress
import ssl
from dataclasses import dataclass
from pathlib import Path

from shoal.core.errors import ConfigurationError


@dataclass(frozen=True, slots=True)
class Lock:
    """A certificate chain with its private key (PEM), or none; `open` lets the line leave this machine without."""

    cert: Path | None = None
    key: Path | None = None
    open: bool = False

    @property
    def scheme(self) -> str:
        """How addresses begin."""
        return "http" if self.cert is None else "https"

    def check(self, host: str) -> None:
        """Raise ConfigurationError for a certificate that cannot be used, or an open line to other machines."""
        if (self.cert is None) != (self.key is None):
            raise ConfigurationError("a certificate without its key, or the other way about", "give --cert and --key")
        if self.cert is not None and self.key is not None:
            _load(self.cert, self.key)
        elif not self.open and not _is_here(host):
            raise ConfigurationError(
                f"listening on {host} without TLS, for other machines",
                "give --cert and --key, or --insecure-http behind a proxy that has them",
            )


def _load(cert: Path, key: Path) -> None:
    try:
        ssl.create_default_context(ssl.Purpose.CLIENT_AUTH).load_cert_chain(cert, key)
    except (OSError, ssl.SSLError) as error:
        raise ConfigurationError(
            f"{cert} with {key} cannot be used for TLS ({error})", "give a certificate chain and its key as PEM files"
        ) from error


def _is_here(host: str) -> bool:
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"

"""Bytes at rest, encrypted with AES-GCM where a key is given."""

import os

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM

from shoal.core.errors import ConfigurationError, WrongKey

NONCE = 12
"""Bytes of a nonce, drawn anew for every piece (NIST SP 800-38D allows 2**32 of them under one key)."""

KEY_SIZES = (16, 24, 32)


class Seal:
    """Seals pieces of bytes, each bound to what it is about; without a key they stay as they are.

    Raises ConfigurationError for a key that is not of 16, 24 or 32 bytes.
    """

    def __init__(self, key: bytes | None = None) -> None:
        if key is not None and len(key) not in KEY_SIZES:
            raise ConfigurationError(f"a key of {len(key)} bytes", "give 32 random bytes, as secrets.token_bytes(32)")
        self._cipher = None if key is None else AESGCM(key)

    @property
    def encrypts(self) -> bool:
        """Whether there is a key."""
        return self._cipher is not None

    def seal(self, data: bytes, about: str) -> bytes:
        """Return nonce and ciphertext, or the bytes themselves without a key."""
        if self._cipher is None:
            return data
        nonce = os.urandom(NONCE)
        return nonce + self._cipher.encrypt(nonce, data, about.encode())

    def open(self, sealed: bytes, about: str) -> bytes:
        """Undo `seal`. Raises WrongKey for another key, for changed bytes and for those of something else."""
        if self._cipher is None:
            return sealed
        try:
            return self._cipher.decrypt(sealed[:NONCE], sealed[NONCE:], about.encode())
        except InvalidTag:
            raise WrongKey(
                f"{about} cannot be opened with this key", "give the key that the home was made with"
            ) from None

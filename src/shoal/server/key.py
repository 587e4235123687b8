"""The coordinator's own key, with which it signs receipts: made at the first start, and kept in the store."""

import base64

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from shoal.core.receipt import Receipt
from shoal.store.store import Store
from shoal.wire import receipts

NAME = "receipts"
"""What the store keeps it under."""


class ReceiptKey:
    """An Ed25519 key, from its raw 32 bytes."""

    def __init__(self, raw: bytes) -> None:
        self._key = Ed25519PrivateKey.from_private_bytes(raw)
        self.public = base64.b64encode(self._key.public_key().public_bytes_raw()).decode()

    @classmethod
    def load(cls, store: Store) -> "ReceiptKey":
        """Return the key of a store, the same for every process that opens it; made where there is none."""
        return cls(store.secret(NAME, Ed25519PrivateKey.generate().private_bytes_raw()))

    def sign(self, receipt: Receipt) -> Receipt:
        """Return the receipt with its signature."""
        return receipts.sign(self._key, receipt)

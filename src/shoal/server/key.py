"""The coordinator's own key, with which it signs receipts: made at the first start of its home, and in every backup."""

import base64
import os
from pathlib import Path

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from shoal.core.errors import CorruptStore
from shoal.core.receipt import Receipt
from shoal.store.durable import sync_folder, write_durably
from shoal.wire import receipts

RAW = 32


class ReceiptKey:
    """An Ed25519 key, from its raw 32 bytes; without any, a new one."""

    def __init__(self, raw: bytes | None = None) -> None:
        self._key = Ed25519PrivateKey.generate() if raw is None else Ed25519PrivateKey.from_private_bytes(raw)
        self.public = base64.b64encode(self._key.public_key().public_bytes_raw()).decode()

    def sign(self, receipt: Receipt) -> Receipt:
        """Return the receipt with its signature."""
        return receipts.sign(self._key, receipt)

    def raw(self) -> bytes:
        """Return the private half."""
        return self._key.private_bytes_raw()


def load_key(path: Path) -> ReceiptKey:
    """Read the key in a file, which is made, for its owner alone, where there is none. Raises CorruptStore."""
    if not path.exists():
        _make(path)
    raw = path.read_bytes()
    if len(raw) != RAW:
        raise CorruptStore(f"{path} has {len(raw)} bytes, a key has {RAW}", "restore it from a backup of the home")
    return ReceiptKey(raw)


def _make(path: Path) -> None:
    made = path.with_name(f"{path.name}.{os.getpid()}")
    write_durably(made, [ReceiptKey().raw()], 0o600)
    try:
        os.link(made, path)  # unlike a rename, it leaves the key of a coordinator that was faster
    except FileExistsError:
        pass
    finally:
        made.unlink()
    sync_folder(path.parent)

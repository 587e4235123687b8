"""What a coordinator signs of a receipt, with its own Ed25519 key (RFC 8032), and how a device checks it."""

import base64
import binascii
from dataclasses import replace

from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey

from shoal.core.errors import WrongReceipt
from shoal.core.receipt import Receipt


def signed_text(receipt: Receipt) -> bytes:
    """Return what is signed: four lines, the time in seconds with six digits behind the point."""
    return f"shoal receipt 1\n{receipt.assignment}\n{receipt.digest}\n{receipt.accepted_at:.6f}\n".encode()


def sign(key: Ed25519PrivateKey, receipt: Receipt) -> Receipt:
    """Return the receipt with its signature, which is the same for the same receipt."""
    return replace(receipt, signature=base64.b64encode(key.sign(signed_text(receipt))).decode())


def check(public_key: str, receipt: Receipt) -> None:
    """Raise WrongReceipt for one that the holder of a key (raw, in base64) did not sign."""
    try:
        key = Ed25519PublicKey.from_public_bytes(base64.b64decode(public_key, validate=True))
        key.verify(base64.b64decode(receipt.signature, validate=True), signed_text(receipt))
    except (InvalidSignature, binascii.Error, ValueError) as error:
        raise WrongReceipt(
            f"the receipt for assignment {receipt.assignment} was not signed with the coordinator's key {public_key}",
            "find out who answers at its address; the update stays in the outbox",
        ) from error

"""The receipt of an update: it stands alone, since errors carry it and trees raise errors."""

from shoal.core.value import value


@value
class Receipt:
    """Proof that an update is durable: which assignment, and the digest of the bytes that were kept.

    `signature` is the coordinator's, in base64 (`wire.receipts`), and comes with the receipts that travel.
    """

    assignment: str
    digest: str
    accepted_at: float
    signature: str = ""

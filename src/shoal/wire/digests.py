"""SHA-256 digests in header fields (RFC 9530): `Content-Digest` and `Repr-Digest`, as `sha-256=:BASE64:`."""

import base64
import binascii
import re

from shoal.core.errors import BadRequest

CONTENT_DIGEST = "Content-Digest"
"""Header: the digest of the bytes in this very body."""

REPR_DIGEST = "Repr-Digest"
"""Header: the digest of the whole of which the body may be a part."""

_MEMBER = re.compile(r"(?:^|,)\s*sha-256=:([A-Za-z0-9+/=]{0,88}):")


def digest_field(digest: bytes) -> str:
    """Return the field value for a SHA-256 of 32 bytes."""
    return f"sha-256=:{base64.b64encode(digest).decode()}:"


def read_digest_field(name: str, value: str) -> bytes:
    """Return the SHA-256 that a field holds among others. Raises BadRequest when it holds none."""
    found = _MEMBER.search(value)
    try:
        digest = base64.b64decode(found[1], validate=True) if found else b""
    except binascii.Error:
        digest = b""
    if len(digest) != 32:
        raise BadRequest(f"{name} {value[:100]!r}", "give sha-256=:BASE64: of 32 bytes")
    return digest

"""Reading SHA-256 digests in header fields (RFC 9530), as `sha-256=:BASE64:`; `wire.signing` writes them."""

import base64
import binascii
import re

from shoal.core.errors import BadRequest

REPR_DIGEST = "Repr-Digest"
"""Header: the digest of the whole of which the body may be a part."""

_MEMBER = re.compile(r"(?:^|,)\s*sha-256=:([A-Za-z0-9+/=]{0,88}):")


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

"""What a device signs of its calls, and how: both sides, without sockets, clocks or random numbers of its own.

In the manner of RFC 9421 (HTTP Message Signatures) with the digest of the body as in RFC 9530. Always the same four
components in the same order, so that one expression reads them. docs/security.md gives the form byte by byte.
"""

import base64
import binascii
import hashlib
import re
from dataclasses import dataclass
from functools import lru_cache
from typing import Literal, Protocol, TypeAlias, cast

from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey
from cryptography.hazmat.primitives.asymmetric.utils import decode_dss_signature, encode_dss_signature
from cryptography.hazmat.primitives.hashes import SHA256

from shoal.core.errors import BadRequest, BadSignature
from shoal.core.value import value
from shoal.wire.digests import CONTENT_DIGEST, digest_field

KeyType: TypeAlias = Literal["ed25519", "p-256"]

INPUT = "Signature-Input"
SIGNATURE = "Signature"

KEYS = 1 << 14
"""Public keys that are kept loaded: loading one costs a third of a check."""

_PARAMS = re.compile(
    r'shoal=(\("@method" "@path" "@query" "content-digest"\);created=(\d{1,11}\.\d{3})'
    r';nonce="([A-Za-z0-9_-]{16,64})";keyid="([0-9a-f]{32})")'
)
_SIGNATURE = re.compile(r"shoal=:([A-Za-z0-9+/]{85}[AQgw]==):")  # 64 bytes, which base64 writes in one way only
_DIGEST = re.compile(r"sha-256=:([A-Za-z0-9+/]{43}=):")

SIGN = "sign the call as docs/security.md says; a device that enrolled with an earlier Shoal needs a newer one"


class SigningKey(Protocol):
    """The private half of a device's key."""

    kind: KeyType

    @property
    def public(self) -> str:
        """The raw public key in base64."""
        ...

    def sign(self, data: bytes) -> bytes:
        """Return 64 bytes."""
        ...


class Ed25519Key:
    """An Ed25519 key (RFC 8032) from its raw 32 bytes in base64."""

    kind: KeyType = "ed25519"

    def __init__(self, private: str) -> None:
        self._key = Ed25519PrivateKey.from_private_bytes(base64.b64decode(private))
        self.public = base64.b64encode(self._key.public_key().public_bytes_raw()).decode()

    @staticmethod
    def generate() -> str:
        """Return a new private key: its raw bytes in base64."""
        return base64.b64encode(Ed25519PrivateKey.generate().private_bytes_raw()).decode()

    def sign(self, data: bytes) -> bytes:
        """Return 64 bytes."""
        return self._key.sign(data)


@dataclass(frozen=True, slots=True)
class VerifyingKey:
    """The public half of a device's key, loaded."""

    key: Ed25519PublicKey | ec.EllipticCurvePublicKey

    def holds(self, signature: bytes, data: bytes) -> bool:
        """Whether a signature of 64 bytes over `data` was made with the private half."""
        try:
            if isinstance(self.key, Ed25519PublicKey):
                self.key.verify(signature, data)
            else:
                self.key.verify(_der(signature), data, ec.ECDSA(SHA256()))
        except InvalidSignature:
            return False
        return True


def _der(signature: bytes) -> bytes:
    # browsers give r and s side by side (IEEE P1363), the library wants them in DER
    return encode_dss_signature(int.from_bytes(signature[:32]), int.from_bytes(signature[32:]))


def side_by_side(der: bytes) -> bytes:
    """Return an ECDSA signature as browsers give it, from DER: r and s, 32 bytes each."""
    r, s = decode_dss_signature(der)
    return r.to_bytes(32) + s.to_bytes(32)


def key_id(public: str) -> str:
    """Return the name under which a public key signs: the first half of its SHA-256 in hexadecimal."""
    return hashlib.sha256(base64.b64decode(public)).hexdigest()[:32]


@lru_cache(KEYS)
def load_key(kind: KeyType, public: str) -> VerifyingKey:
    """Load a public key: 32 raw bytes, or for P-256 an uncompressed point of 65, in base64. Raises BadRequest."""
    try:
        raw = base64.b64decode(public, validate=True)
    except (binascii.Error, ValueError) as error:
        raise BadRequest(f"public key {public[:80]!r} is not base64", "send the raw key in base64") from error
    size = 32 if kind == "ed25519" else 65
    if len(raw) != size:
        raise BadRequest(f"a public key of {len(raw)} bytes", f"send the raw {kind} key: {size} bytes in base64")
    if kind == "ed25519":
        return VerifyingKey(Ed25519PublicKey.from_public_bytes(raw))
    try:
        return VerifyingKey(ec.EllipticCurvePublicKey.from_encoded_point(ec.SECP256R1(), raw))
    except ValueError as error:
        raise BadRequest("a public key that is no point of P-256", "send what exportKey('raw') gives") from error


EMPTY_DIGEST = digest_field(hashlib.sha256().digest())
"""The Content-Digest of no body, which is signed as any other."""


@value
class Signature:
    """What the headers of a signed call say; nothing of it is true before `check`."""

    params: str
    created: float
    nonce: str
    key: str
    digest: str
    value: bytes

    def check(self, key: VerifyingKey, method: str, path: str, query: str) -> None:
        """Raise BadSignature unless `key` signed this call; `path` as on the wire, `query` without its "?"."""
        if not key.holds(self.value, _base(method, path, query, self.digest, self.params)):
            raise BadSignature(f"the signature of {method} {path} is not that of its key over this call", SIGN)


def sign(key: SigningKey, method: str, target: str, digest: str, created: float, nonce: str) -> dict[str, str]:
    """Return the headers that sign a call.

    `target` is path and query below the coordinator's address, percent-encoded; `digest` the Content-Digest; `created`
    seconds since 1970, cut to milliseconds; `nonce` 16 to 64 letters, digits, "-" and "_", never used before.
    """
    path, _, query = target.partition("?")
    milliseconds = int(created * 1000)
    params = (
        '("@method" "@path" "@query" "content-digest")'
        f";created={milliseconds // 1000}.{milliseconds % 1000:03d}"
        f';nonce="{nonce}";keyid="{key_id(key.public)}"'
    )
    value = base64.b64encode(key.sign(_base(method, path, query, digest, params))).decode()
    return {CONTENT_DIGEST: digest, INPUT: f"shoal={params}", SIGNATURE: f"shoal=:{value}:"}


def read(given_input: str | None, given_signature: str | None, digest: str | None) -> Signature:
    """Read the three headers of a signed call. Raises BadSignature for any other form than ours."""
    params = _PARAMS.fullmatch(given_input or "")
    value = _SIGNATURE.fullmatch(given_signature or "")
    if params is None or value is None:
        header = INPUT if params is None else SIGNATURE
        raise BadSignature(f"a call of a device without a {header} that can be read", SIGN)
    if digest is None or _DIGEST.fullmatch(digest) is None:
        raise BadSignature(f"a {CONTENT_DIGEST} of {(digest or '')[:80]!r}", SIGN)
    return Signature(params[1], float(params[2]), params[3], params[4], digest, base64.b64decode(value[1]))


def check_body(signed: str, found: bytes) -> None:
    """Raise BadSignature when a body's SHA-256 is not that of its signed Content-Digest."""
    if digest_field(found) != signed:
        raise BadSignature(f"a body with the digest {digest_field(found)}, the signature is over {signed}", SIGN)


def _base(method: str, path: str, query: str, digest: str, params: str) -> bytes:
    """Return the signature base of RFC 9421, section 2.5."""
    return (
        f'"@method": {method}\n"@path": {path}\n"@query": ?{query}\n"content-digest": {digest}\n'
        f'"@signature-params": {params}'
    ).encode()


def as_key_type(kind: str) -> KeyType:
    """Return a kind of key that is known here. Raises BadRequest."""
    if kind not in ("ed25519", "p-256"):
        raise BadRequest(f"a key of type {kind[:40]!r}", "make an Ed25519 key, or one on P-256")
    return cast(KeyType, kind)

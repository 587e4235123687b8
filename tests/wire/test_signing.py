"""What is signed, held against the text of RFC 9421 written out by hand, and against every change of it."""

import base64
import hashlib
import re
from pathlib import Path

import pytest
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat
from hypothesis import given, settings
from hypothesis import strategies as st

from shoal.core.errors import BadRequest, BadSignature
from shoal.wire.digests import CONTENT_DIGEST as DIGEST
from shoal.wire.digests import digest_field
from shoal.wire.signing import (
    EMPTY_DIGEST,
    INPUT,
    SIGNATURE,
    Ed25519Key,
    as_key_type,
    check_body,
    key_id,
    load_key,
    read,
    side_by_side,
    sign,
)

KEY = Ed25519Key(base64.b64encode(bytes(range(32))).decode())
NONCE = "v3mJ0bq6r0yB2mXc8c1nVg"
BODY = b'{"wait": 20}'
DIGEST_OF_BODY = digest_field(hashlib.sha256(BODY).digest())
PAGE = Path(__file__).parents[2] / "docs" / "security.md"


class BrowserKey:
    """A P-256 key as WebCrypto has it: raw public point, r and s side by side."""

    kind = "p-256"

    def __init__(self) -> None:
        self._key = ec.generate_private_key(ec.SECP256R1())
        point = self._key.public_key().public_bytes(Encoding.X962, PublicFormat.UncompressedPoint)
        self.public = base64.b64encode(point).decode()

    def sign(self, data: bytes) -> bytes:
        return side_by_side(self._key.sign(data, ec.ECDSA(SHA256())))


def signature(headers):
    return read(headers[INPUT], headers[SIGNATURE], headers[DIGEST])


def test_the_headers_are_those_of_the_rfc_written_by_hand():
    headers = sign(KEY, "POST", "/v1/checkin?a=%20b", DIGEST_OF_BODY, 1700000000.2509, NONCE)
    digest = f"sha-256=:{base64.b64encode(hashlib.sha256(BODY).digest()).decode()}:"
    key = hashlib.sha256(base64.b64decode(KEY.public)).hexdigest()[:32]
    params = (
        '("@method" "@path" "@query" "content-digest");created=1700000000.250;'
        f'nonce="v3mJ0bq6r0yB2mXc8c1nVg";keyid="{key}"'
    )
    lines = [
        '"@method": POST',
        '"@path": /v1/checkin',
        '"@query": ?a=%20b',
        f'"content-digest": {digest}',
        f'"@signature-params": {params}',
    ]
    assert (headers[DIGEST], headers[INPUT]) == (digest, f"shoal={params}")
    value = re.fullmatch(r"shoal=:(.{88}):", headers[SIGNATURE])
    public = Ed25519PublicKey.from_public_bytes(base64.b64decode(KEY.public))
    public.verify(base64.b64decode(value[1]), "\n".join(lines).encode())


def test_the_page_shows_what_is_signed():
    text = PAGE.read_text()
    assert EMPTY_DIGEST in text
    headers = sign(KEY, "POST", "/v1/assignments/7f3c/report", EMPTY_DIGEST, 1700000000.25, NONCE)
    assert f"{INPUT}: {headers[INPUT]}\n" in text
    assert f'"@signature-params": {headers[INPUT].removeprefix("shoal=")}\n' in text


@pytest.mark.parametrize("key", [KEY, BrowserKey()], ids=["ed25519", "p-256"])
def test_both_kinds_of_key_hold_for_their_call_and_for_no_other(key):
    found = signature(sign(key, "POST", "/v1/checkin?x=1", DIGEST_OF_BODY, 5.25, NONCE))
    public = load_key(key.kind, key.public)
    assert (found.created, found.nonce, found.key, found.digest) == (5.25, NONCE, key_id(key.public), DIGEST_OF_BODY)
    found.check(public, "POST", "/v1/checkin", "x=1")
    for method, path, query in [
        ("PUT", "/v1/checkin", "x=1"),
        ("POST", "/v1/checkin/", "x=1"),
        ("POST", "/v1/checkin", "x=2"),
        ("POST", "/v1/checkin", ""),
    ]:
        with pytest.raises(BadSignature, match="is not that of its key over this call"):
            found.check(public, method, path, query)
    other = BrowserKey() if key.kind == "p-256" else Ed25519Key(Ed25519Key.generate())
    with pytest.raises(BadSignature):
        found.check(load_key(other.kind, other.public), "POST", "/v1/checkin", "x=1")


@settings(max_examples=60)
@given(st.sampled_from([DIGEST, INPUT, SIGNATURE]), st.data())
def test_no_letter_of_the_headers_can_be_changed(header, data):
    headers = sign(KEY, "GET", "/v1/tasks", EMPTY_DIGEST, 1700000000.25, NONCE)
    text = headers[header]
    at = data.draw(st.integers(0, len(text) - 1))
    letter = data.draw(st.characters(min_codepoint=32, max_codepoint=126).filter(lambda made: made != text[at]))
    with pytest.raises(BadSignature):
        signature(headers | {header: text[:at] + letter + text[at + 1 :]}).check(
            load_key(KEY.kind, KEY.public), "GET", "/v1/tasks", ""
        )


@pytest.mark.parametrize("header", [DIGEST, INPUT, SIGNATURE])
@pytest.mark.parametrize("text", [None, "", "shoal=::", "sha-512=:AAAA:", 'sig1=("@method");created=1'])
def test_other_forms_are_refused(header, text):
    headers = sign(KEY, "GET", "/", EMPTY_DIGEST, 1.0, NONCE)
    with pytest.raises(BadSignature, match=header):
        signature({**headers, header: text})


def test_a_body_is_what_its_digest_says():
    check_body(DIGEST_OF_BODY, hashlib.sha256(BODY).digest())
    with pytest.raises(BadSignature, match="a body with the digest"):
        check_body(DIGEST_OF_BODY, hashlib.sha256(BODY + b" ").digest())


@pytest.mark.parametrize(
    ("kind", "public", "problem"),
    [
        ("ed25519", "A" * 40, "of 30 bytes"),
        ("ed25519", "no base64!", "is not base64"),
        ("ed25519", "ü", "is not base64"),
        ("p-256", KEY.public, "of 32 bytes"),
        ("p-256", base64.b64encode(b"\4" + bytes(63) + b"\1").decode(), "no point of P-256"),
    ],
)
def test_what_is_no_public_key_is_refused(kind, public, problem):
    with pytest.raises(BadRequest, match=problem):
        load_key(kind, public)


def test_other_types_of_key_are_refused():
    with pytest.raises(BadRequest, match="a key of type 'rsa'"):
        as_key_type("rsa")

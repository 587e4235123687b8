"""What every route needs: the message in the body under a cap, as it was signed, and the reply."""

import asyncio
import hashlib
from collections.abc import AsyncIterator, Mapping
from typing import Any, Protocol, TypeVar

from fastapi import Request, Response
from starlette.requests import ClientDisconnect

from shoal.core.errors import BadRequest, TooLarge, TooSlow, UnknownEncoding
from shoal.server.auth import wrong_protocol
from shoal.server.coordinator import Coordinator
from shoal.wire.messages import HELD, MAX_MESSAGE, PROTOCOL, Greeting, decode, encode
from shoal.wire.signing import Signature, check_body

T = TypeVar("T")


class Greeted(Protocol):
    """A message that says which protocol it speaks."""

    @property
    def protocol(self) -> int:
        """Its version."""
        ...


G = TypeVar("G", bound=Greeted)

PATIENCE_SECONDS = 30.0
"""For how long a peer may keep the coordinator waiting for a body, in all, beside the time that its bytes earn."""

SLOWEST_PEER = 4096
"""Bytes that earn a peer another second: a body of 40 MB may take almost three hours, an idle one 30 seconds."""


def coordinator(request: Request) -> Coordinator:
    """Return the coordinator that the application serves."""
    served: Coordinator = request.app.state.coordinator
    return served


def announced(request: Request) -> int:
    """Return how many bytes the body has, as its head says; 1 when it does not say."""
    length = request.headers.get("content-length", "")
    return int(length) if length.isdecimal() and len(length) < 20 else 1


class Answer(Response):
    """A message as a response, with no more work than its two headers need."""

    def __init__(self, body: bytes, held: float | None) -> None:
        self.status_code = 200
        self.background = None
        self.body = body
        self.raw_headers = [(b"content-type", b"application/json"), (b"content-length", b"%d" % len(body))]
        if held is not None:
            self.raw_headers.append((HELD.lower().encode(), b"%.4f" % held))


async def body(request: Request, most: int) -> AsyncIterator[bytes]:
    """Yield the body in pieces.

    Raises TooLarge before more than `most` bytes are taken, TooSlow when the peer stalls, UnknownEncoding for a
    compressed one, of which nothing is inflated; behind the last piece BadSignature for one that was not signed.
    """
    fields: Mapping[bytes, bytes] = request.state.fields
    if fields.get(b"content-encoding", b"identity") != b"identity":
        raise UnknownEncoding(
            f"a body with content-encoding {request.headers['content-encoding'][:40]!r}", "send it as it is"
        )
    length = fields.get(b"content-length", b"0")
    if not length.isdigit():
        raise BadRequest(f"content-length {request.headers['content-length'][:40]!r}", "send a number of bytes")
    if int(length) > most:
        raise TooLarge(f"a body of {int(length)} bytes", f"the cap here is {most}")
    received, found = 0, hashlib.sha256()
    signature: Signature | None = request.state.signature
    async for piece in _in_time(request):
        received += len(piece)
        if received > most:
            raise TooLarge(f"a body of more than {received} bytes", f"the cap here is {most}")
        if signature is not None:
            found.update(piece)
        yield piece
    if signature is not None:
        check_body(signature.digest, found.digest())


async def _in_time(request: Request) -> AsyncIterator[bytes]:
    # what the disk takes between two pieces is not the peer's fault: only the waiting counts
    clock = asyncio.get_running_loop().time
    left = PATIENCE_SECONDS
    received, more = 0, True
    while more:
        began = clock()
        try:
            async with asyncio.timeout(left):
                part = await request.receive()
        except TimeoutError:
            raise _too_slow(received) from None
        if part["type"] == "http.disconnect":
            raise ClientDisconnect
        piece: bytes = part.get("body", b"")
        more = part.get("more_body", False)
        received += len(piece)
        left += len(piece) / SLOWEST_PEER - (clock() - began)
        if piece:
            yield piece


def _too_slow(received: int) -> TooSlow:
    return TooSlow(
        f"{received} bytes of a body had arrived when the time for it was over",
        f"send it again, faster than {SLOWEST_PEER} bytes a second",
    )


async def message(request: Request, kind: type[T]) -> T:
    """Read the message in the body. Raises TooLarge, BadRequest naming the field that is wrong."""
    return decode(b"".join([piece async for piece in body(request, MAX_MESSAGE)]), kind)


async def greeting(request: Request, kind: type[G]) -> G:
    """Read a message that says which protocol it speaks. Raises WrongProtocol, whatever else is in it."""
    data = b"".join([piece async for piece in body(request, MAX_MESSAGE)])
    try:
        read = decode(data, kind)
        spoken = read.protocol
    except BadRequest:
        # a message of another version may look different in everything else
        spoken = decode(data, Greeting).protocol
        if spoken == PROTOCOL:
            raise
    if spoken != PROTOCOL:
        raise wrong_protocol(spoken)
    return read


def reply(content: object, held: float | None = None) -> Response:
    """Return a message as a response; `held` tells the caller how long the server waited on purpose."""
    return Answer(encode(content), held)


def takes(kind: type[Any]) -> dict[str, Any]:
    """Return the OpenAPI description of a route whose body is a message."""
    schema = {"$ref": f"#/components/schemas/{kind.__name__}"}
    return {"requestBody": {"required": True, "content": {"application/json": {"schema": schema}}}}


def gives(kind: type[Any], *, many: bool = False) -> dict[int | str, dict[str, Any]]:
    """Return the OpenAPI description of what a route answers."""
    schema: dict[str, Any] = {"$ref": f"#/components/schemas/{kind.__name__}"}
    if many:
        schema = {"type": "array", "items": schema}
    return {200: {"description": "Done", "content": {"application/json": {"schema": schema}}}, **refusals()}


def refusals(status: str = "", done: str = "") -> dict[int | str, dict[str, Any]]:
    """Return the OpenAPI description of a route's errors, and of a `status` whose answer is in its head alone."""
    failure = {"schema": {"$ref": "#/components/schemas/ErrorMessage"}}
    return {
        **({status: {"description": done}} if status else {}),
        "4XX": {"description": "Refused", "content": {"application/json": failure}},
        "5XX": {"description": "Try again later", "content": {"application/json": failure}},
    }

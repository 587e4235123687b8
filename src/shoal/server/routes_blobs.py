"""Models and plans by digest: immutable bytes."""

from collections.abc import AsyncIterator, Iterator

import anyio.to_thread
from fastapi import APIRouter, Request, Response
from fastapi.responses import StreamingResponse

from shoal.core.errors import NotFound
from shoal.server.calls import announced, body, coordinator, gives, reply
from shoal.server.receive import receive
from shoal.server.variants import Variant
from shoal.store.store import Blobs
from shoal.wire.messages import BlobReply
from shoal.wire.ranges import accepts, etag, lists, read_range

MAX_BLOB = 16 << 30
"""Largest blob that a researcher may send, in bytes."""

AT_ONCE = 1 << 20
"""Blobs up to this size are sent in one piece."""

KIND = "application/octet-stream"

router = APIRouter(tags=["blobs"])


@router.post(
    "/v1/blobs",
    openapi_extra={"requestBody": {"required": True, "content": {"application/octet-stream": {}}}},
    responses=gives(BlobReply),
)
async def send(request: Request) -> Response:
    """Keep a blob; the answer is its SHA-256."""
    here = coordinator(request)
    async with here.housekeeping.taking(announced(request)) as place:
        kept = await receive(here.storage.blobs, "published", place.holding(body(request, MAX_BLOB)))
    here.housekeeping.sent(kept.digest)
    return reply(kept)


@router.head("/v1/blobs/{digest}", include_in_schema=False)
@router.get("/v1/blobs/{digest}", response_class=Response)
async def fetch(request: Request, digest: str) -> Response:
    """Return a blob, a range of it (206), or 304 to a caller that has it.

    It never changes, so it may be cached for ever; 410 when it is of a version that was removed. It comes as gzip to a
    caller that takes it and asks for no range, where that saves a tenth.
    """
    here = coordinator(request)
    here.tasks.present(digest)
    blobs, asked = here.storage.blobs, request.headers
    if blobs.namespace(digest) != "published":
        raise NotFound(f"no published blob {digest}", "updates are never handed out")
    size = blobs.size(digest)
    if lists(asked.get("if-none-match"), etag(digest)):
        return Response(status_code=304, headers=_head(digest))
    part = read_range(asked.get("range"), size) if asked.get("if-range", etag(digest)) == etag(digest) else None
    await anyio.to_thread.run_sync(here.storage.check, digest)
    if part is None and accepts(asked.get("accept-encoding"), "gzip"):
        variant = await here.variants.find(digest, size)
        if variant is not None:
            return _packed(digest, variant)
    return _plain(blobs, digest, size, part)


def _head(digest: str, encoding: str = "") -> dict[str, str]:
    return {
        "Cache-Control": "private, max-age=31536000, immutable",
        "ETag": etag(digest, encoding),
        "Vary": "Accept-Encoding",
        "Accept-Ranges": "bytes",
    }


def _packed(digest: str, variant: Variant) -> Response:
    headers = {**_head(digest, "gzip"), "Content-Encoding": "gzip", "Content-Length": str(variant.size)}
    return StreamingResponse(_pieces(variant.pieces()), media_type=KIND, headers=headers)


def _plain(blobs: Blobs, digest: str, size: int, part: tuple[int, int] | None) -> Response:
    start, stop = part or (0, size)
    headers = {**_head(digest), "Content-Length": str(stop - start)}
    if part is not None:
        headers["Content-Range"] = f"bytes {start}-{stop - 1}/{size}"
    status = 200 if part is None else 206
    pieces = blobs.open(digest, start, stop)
    if stop - start <= AT_ONCE:
        return Response(b"".join(pieces), status, media_type=KIND, headers=headers)
    return StreamingResponse(_pieces(pieces), status, media_type=KIND, headers=headers)


async def _pieces(pieces: Iterator[bytes]) -> AsyncIterator[bytes]:
    while piece := await anyio.to_thread.run_sync(next, pieces, b""):
        yield piece

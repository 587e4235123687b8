"""Models and plans by digest: immutable bytes."""

from collections.abc import AsyncIterator

import anyio.to_thread
from fastapi import APIRouter, Request, Response
from fastapi.responses import StreamingResponse

from shoal.core.errors import NotFound
from shoal.server.calls import announced, body, coordinator, gives, reply, require, require_anyone
from shoal.server.receive import receive
from shoal.store.store import Blobs
from shoal.wire.messages import BlobReply

MAX_BLOB = 16 << 30
"""Largest blob that a researcher may send, in bytes."""

AT_ONCE = 1 << 20
"""Blobs up to this size are sent in one piece."""

router = APIRouter(tags=["blobs"])


@router.post(
    "/v1/blobs",
    openapi_extra={"requestBody": {"required": True, "content": {"application/octet-stream": {}}}},
    responses=gives(BlobReply),
)
async def send(request: Request) -> Response:
    """Keep a blob; the answer is its SHA-256."""
    require(request, "publish")
    here = coordinator(request)
    async with here.housekeeping.taking(announced(request)) as place:
        kept = await receive(here.storage.blobs, "published", place.holding(body(request, MAX_BLOB)))
    here.housekeeping.sent(kept.digest)
    return reply(kept)


@router.get("/v1/blobs/{digest}", response_class=Response)
async def fetch(request: Request, digest: str) -> Response:
    """Return a blob. It never changes, so it may be cached for ever; 410 when it is of a version that was removed."""
    require_anyone(request)
    here = coordinator(request)
    here.tasks.present(digest)
    blobs = here.storage.blobs
    if blobs.namespace(digest) != "published":
        raise NotFound(f"no published blob {digest}", "updates are never handed out")
    size = blobs.size(digest)
    await anyio.to_thread.run_sync(here.storage.check, digest)
    headers = {"Cache-Control": "private, max-age=31536000, immutable", "Content-Length": str(size)}
    if size <= AT_ONCE:
        return Response(b"".join(blobs.open(digest)), media_type="application/octet-stream", headers=headers)
    return StreamingResponse(_pieces(blobs, digest), media_type="application/octet-stream", headers=headers)


async def _pieces(blobs: Blobs, digest: str) -> AsyncIterator[bytes]:
    pieces = blobs.open(digest)
    while piece := await anyio.to_thread.run_sync(next, pieces, b""):
        yield piece

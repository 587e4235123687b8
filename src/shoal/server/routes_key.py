"""The key that devices pin when they enrol."""

from fastapi import APIRouter, Request, Response

from shoal.server.calls import coordinator, gives, reply
from shoal.wire.messages import KeyReply

router = APIRouter(tags=["devices"])


@router.get("/v1/key", responses=gives(KeyReply))
async def key(request: Request) -> Response:
    """Return the public half of the key that signs receipts. It is no secret: everybody may ask."""
    return reply(KeyReply(coordinator(request).key.public))

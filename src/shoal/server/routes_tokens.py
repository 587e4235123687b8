"""Tokens of people and for enrolment. An owner has to do with enrolment tokens only."""

import asyncio
from collections.abc import Collection

from fastapi import APIRouter, Request, Response

from shoal.core.errors import Forbidden
from shoal.server.admission import calling_person
from shoal.server.auth import hashed
from shoal.server.calls import coordinator, gives, message, reply, takes
from shoal.store.store import Purpose, TokenRecord
from shoal.wire.messages import TokenRequest, TokenStatus

router = APIRouter(tags=["tokens"])

ALL: tuple[Purpose, ...] = ("admin", "researcher", "owner", "viewer", "enrolment")


@router.post("/v1/tokens", openapi_extra=takes(TokenRequest), responses=gives(TokenStatus))
async def create(request: Request) -> Response:
    """Make a token; the answer is the only time that it can be read."""
    asked = await message(request, TokenRequest)
    if asked.role not in _in_reach(request):
        raise Forbidden(f"a token for {calling_person(request).purpose!r} may not make one for {asked.role!r}", _ASK)
    here = coordinator(request)
    now = here.clock()
    expires = None if asked.expires_in is None else now + asked.expires_in
    token = await asyncio.to_thread(here.identities.issue, asked.role, now, expires, asked.uses, asked.scope)
    return reply(_status(here.identities.tokens[hashed(token)], token))


@router.get("/v1/tokens", responses=gives(TokenStatus, many=True))
async def tokens(request: Request) -> Response:
    """List the tokens, oldest first, without the tokens themselves."""
    found = await asyncio.to_thread(coordinator(request).storage.store.tokens)
    return reply([_status(token) for token in found if token.purpose in _in_reach(request)])


@router.delete("/v1/tokens/{token}", responses=gives(TokenStatus))
async def revoke(request: Request, token: str) -> Response:
    """Take a token back, by its id, at once: calls that are held for it end."""
    here = coordinator(request)
    revoked = await here.identities.revoke_token(token, here.clock(), _in_reach(request))
    here.bell.ring()
    return reply(_status(revoked))


_ASK = "ask an administrator"


def _in_reach(request: Request) -> Collection[Purpose]:
    return ALL if calling_person(request).purpose == "admin" else ("enrolment",)


def _status(token: TokenRecord, secret: str | None = None) -> TokenStatus:
    return TokenStatus(
        token.id,
        token.purpose,
        token.created,
        token.expires,
        token.uses,
        token.used,
        token.scope,
        token.revoked,
        secret,
    )

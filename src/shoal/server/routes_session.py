"""Signing in and out of pages."""

from fastapi import APIRouter, Request, Response

from shoal.core.errors import Forbidden, Unauthorised
from shoal.server import session
from shoal.server.admission import calling_person
from shoal.server.calls import coordinator, gives, message, refusals, reply, takes
from shoal.store.store import TokenRecord
from shoal.wire.watching import SessionReply, SignInRequest

router = APIRouter(tags=["session"])


@router.post("/v1/session", openapi_extra=takes(SignInRequest), responses=gives(SessionReply))
async def sign_in(request: Request) -> Response:
    """Keep a person's token in a cookie; pages of another origin may not. The reply says whose role it gives."""
    if not session.own(request):
        raise Forbidden("signing in from a page of another origin", "open the coordinator's own page")
    secret = (await message(request, SignInRequest)).token.strip()
    here = coordinator(request)
    response = reply(_session(here.identities.person(f"Bearer {secret}", here.clock())))
    session.begin(request, response, secret)
    return response


@router.get("/v1/session", responses=gives(SessionReply))
async def signed_in(request: Request) -> Response:
    """Say whose role the caller has."""
    return reply(_session(calling_person(request)))


@router.delete("/v1/session", responses=refusals("204", "Signed out"))
async def sign_out(request: Request) -> Response:
    """Forget the cookie, also that of a token which is of no use any more."""
    response = Response(status_code=204)
    session.end(request, response)
    return response


def _session(caller: TokenRecord) -> SessionReply:
    if caller.purpose == "enrolment":
        raise Unauthorised("a token for 'enrolment' signs nobody in", "use a person's token: `shoal tokens create`")
    return SessionReply(caller.purpose, caller.expires)

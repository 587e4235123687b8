"""Letting a call in: who makes it, and whether the table of `roles` says that they may."""

import ipaddress
from collections.abc import Callable, Mapping

from fastapi import Request

from shoal.core.errors import BadSignature, Forbidden
from shoal.server import session
from shoal.server.auth import Call, wrong_protocol
from shoal.server.coordinator import Coordinator
from shoal.server.roles import CALLS, DEVICE, EVERYONE, HERE, NEWCOMER, NOBODY, PEOPLE
from shoal.store.store import DeviceRecord, TokenRecord
from shoal.wire.digests import CONTENT_DIGEST
from shoal.wire.messages import PROTOCOL, SPOKEN
from shoal.wire.signing import INPUT, SIGN, SIGNATURE, Signature, read

# names of fields as they come from a socket
SPEAKS, _INPUT, _SIGNATURE, _DIGEST = (name.lower().encode() for name in (SPOKEN, INPUT, SIGNATURE, CONTENT_DIGEST))
OURS = str(PROTOCOL).encode()


def admitted(request: Request, path: str) -> None:
    """Let only callers in to a route who speak this protocol (or do not say), and who may make this call.

    Notes in the request who calls, and the digest that its body has to have. Raises WrongProtocol, Unauthorised,
    BadSignature, Forbidden.
    """
    # of fields that stand there twice the first one counts
    fields: dict[bytes, bytes] = dict(reversed(request.scope["headers"]))
    spoken = fields.get(SPEAKS, OURS)
    if spoken != OURS:
        raise wrong_protocol(int(spoken) if spoken.isdigit() and len(spoken) < 10 else 0)
    call = f"{request.scope['method']} {path}"
    allowed = CALLS.get(call, NOBODY)
    state = request.state
    state.fields, state.caller, state.signature = fields, None, None
    if allowed is EVERYONE or (call in HERE and (request.app.state.metrics_public or _local(request))):
        return
    if allowed is NEWCOMER:
        state.signature = signature_in(fields)
    elif _INPUT in fields:
        state.signature = signature = signature_in(fields)
        state.caller = _device(request, signature)
        _check(call, "device" in allowed, "a device")
    else:
        if allowed is DEVICE and b"authorization" not in fields:
            raise BadSignature(f"a call of a device without a {INPUT} that can be read", SIGN)
        state.caller = _person(request)
        role = state.caller.purpose
        _check(call, role in allowed, f"a token for {role!r}", ", ".join(sorted(allowed & PEOPLE)))


def _check(call: str, may: bool, who: str, roles: str = "") -> None:
    if not may:
        fix = f"use a token for one of: {roles}" if roles else "see docs/security.md for who may"
        raise Forbidden(f"{who} may not call {call}", fix)


def signed_call(request: Request) -> Call:
    """Return what of a call is signed, beside its body."""
    scope = request.scope
    return Call(scope["method"], scope["raw_path"].decode("latin-1"), scope["query_string"].decode("latin-1"))


def signature_in(fields: Mapping[bytes, bytes]) -> Signature:
    """Return what the fields of a signed call say. Raises BadSignature for any other form than ours."""
    given, value, digest = fields.get(_INPUT), fields.get(_SIGNATURE), fields.get(_DIGEST)
    return read(
        None if given is None else given.decode("latin-1"),
        None if value is None else value.decode("latin-1"),
        None if digest is None else digest.decode("latin-1"),
    )


def _device(request: Request, signature: Signature) -> DeviceRecord:
    here = _served(request)
    return here.identities.device(signature, signed_call(request), here.clock())


def _person(request: Request) -> TokenRecord:
    here = _served(request)
    shown = request.headers.get("authorization")
    if shown is None and (secret := session.token(request)) is not None:
        shown = f"Bearer {secret}"
    return here.identities.person(shown, here.clock())


def _served(request: Request) -> Coordinator:
    served: Coordinator = request.app.state.coordinator
    return served


def calling_device(request: Request) -> DeviceRecord:
    """Return the device that calls, on a route that only devices may call."""
    caller = request.state.caller
    assert isinstance(caller, DeviceRecord)
    return caller


def calling_person(request: Request) -> TokenRecord:
    """Return the token of the person who calls, on a route that only people may call."""
    caller = request.state.caller
    assert isinstance(caller, TokenRecord)
    return caller


def device_name(request: Request) -> str:
    """Return the name of the device that calls, "" when a person does."""
    caller = request.state.caller
    return caller.name if isinstance(caller, DeviceRecord) else ""


def scope(request: Request) -> tuple[str, ...]:
    """Return the names of the tasks that the caller is confined to, () for none."""
    caller = request.state.caller
    return caller.scope if isinstance(caller, DeviceRecord) else ()


def still(request: Request) -> Callable[[], None]:
    """Return what raises Unauthorised once the caller is revoked: to be called whenever a held call wakes."""
    here = _served(request)
    return lambda: here.identities.check(request.state.caller, here.clock())


def _local(request: Request) -> bool:
    # A proxy on this machine calls from here for others: whoever came by one needs a token.
    if request.client is None or any(name in request.headers for name in ("forwarded", "x-forwarded-for", "via")):
        return False
    try:
        return ipaddress.ip_address(request.client.host).is_loopback
    except ValueError:
        return False

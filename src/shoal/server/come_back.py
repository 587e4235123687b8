"""The answer to most calls by far: a check-in for which there is nothing to do, told when to come back.

It needs no waiting, writes nothing and fits in one piece, so it is made in one go. Whatever else a call is, or is wrong
with it, is left to the ordinary way, which begins from its first byte: what is refused is refused in one place.
"""

import hashlib
from collections.abc import Mapping

from shoal.core.errors import ShoalError
from shoal.server.admission import OURS, SPEAKS, signature_in
from shoal.server.auth import Call
from shoal.server.coordinator import Coordinator
from shoal.server.roles import CHECK_IN
from shoal.wire.messages import PROTOCOL, CheckInRequest, decode, encode
from shoal.wire.signing import check_body

METHOD, PATH = (part.encode() for part in CHECK_IN.split())

ORDINARY = frozenset((b"origin", b"content-encoding", b"expect", b"upgrade"))
"""What a call with one of these fields asks for beside its answer."""

_CALL = Call(METHOD.decode(), PATH.decode(), "")


def come_back(here: Coordinator, fields: Mapping[bytes, bytes], body: bytes) -> bytes | None:
    """Return the answer to a check-in that brings nothing; None for any other, and for one that is to be refused."""
    if not ORDINARY.isdisjoint(fields) or fields.get(SPEAKS, OURS) != OURS:
        return None
    try:
        signature, asked = signature_in(fields), decode(body, CheckInRequest)
        device = here.identities.named(signature.key)
        if device is None or asked.protocol != PROTOCOL or asked.wait > 0:
            return None
        reply = here.devices.nothing(device, asked)
        if reply is None:
            return None
        check_body(signature.digest, hashlib.sha256(body).digest())
        # the last that may fail: it uses the nonce up
        here.identities.device(signature, _CALL, here.clock())
    except ShoalError:
        return None
    here.devices.population.arrived(device.name, here.clock())
    here.metrics.waiting.inc()
    answer = encode(reply)
    here.metrics.bytes_in.inc(len(body))
    here.metrics.bytes_out.inc(len(answer))
    return answer

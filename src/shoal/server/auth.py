"""Who is calling: people by API token, devices by the key that signs their calls.

Tokens are random, 256 bits, and kept as SHA-256 digests; each begins with what it is, so that scanners find leaks.
"""

import asyncio
import hashlib
import secrets
from collections.abc import Collection
from dataclasses import dataclass, field, replace
from typing import Literal

from shoal.core.errors import BadRequest, BadSignature, Conflict, Forbidden, NotFound, Unauthorised, WrongProtocol
from shoal.core.value import value
from shoal.server.newcomers import Newcomer, Newcomers
from shoal.server.nonces import Nonces
from shoal.server.roles import PEOPLE
from shoal.store.rules import no_token, unusable
from shoal.store.store import DeviceRecord, Purpose, Store, TokenRecord
from shoal.wire.messages import PROTOCOL, DeviceStatus, EnrolRequest
from shoal.wire.signing import Signature, as_key_type, key_id, load_key


def hashed(secret: str) -> str:
    """Return the digest under which a secret is kept."""
    return hashlib.sha256(secret.encode()).hexdigest()


@value
class Call:
    """What of a call is signed beside its body: the method, the path as on the wire, the query without its "?"."""

    method: str
    path: str
    query: str


@dataclass(slots=True)
class Identities:
    """The known devices and tokens, in memory, written through to the store. Belongs to one event loop."""

    store: Store
    nonces: Nonces
    newcomers: Newcomers
    devices: dict[str, DeviceRecord] = field(default_factory=dict[str, DeviceRecord])
    tokens: dict[str, TokenRecord] = field(default_factory=dict[str, TokenRecord])
    keys: dict[str, str] = field(default_factory=dict[str, str])
    seen: dict[str, float] = field(default_factory=dict[str, float])
    noted: dict[str, float] = field(default_factory=dict[str, float])

    @classmethod
    def load(cls, store: Store, now: float, *, approval: bool) -> "Identities":
        """Read what the store knows. Signatures from before `now` are refused; `approval` lets devices ask to join."""
        known = cls(store, Nonces(now), Newcomers(approval, store.refused()))
        for device in store.devices():
            known._keep(device)
        known.noted = dict(store.seen())
        known.seen = dict(known.noted)
        known.tokens = {token.hash: token for token in store.tokens()}
        return known

    def _keep(self, device: DeviceRecord) -> None:
        self.devices[device.name] = device
        self.keys[device.id] = device.name

    # People

    def issue(
        self,
        purpose: Purpose,
        now: float,
        expires: float | None = None,
        uses: int | None = None,
        scope: tuple[str, ...] = (),
    ) -> str:
        """Make a token, keep its digest and return it: the only time it can be read.

        Raises BadRequest for a token of a person with uses or a scope, which only enrolment tokens have.
        """
        if purpose != "enrolment" and (uses is not None or scope):
            raise BadRequest(f"a token for {purpose!r} with uses or a scope", "only enrolment tokens have these")
        if (uses is not None and uses < 1) or (expires is not None and expires <= now):
            raise BadRequest("a token that nobody could use", "give at least one use, and a time to come")
        token = f"shoal_{purpose}_{secrets.token_urlsafe(32)}"
        record = TokenRecord(hashed(token), purpose, now, expires, uses, scope=scope)
        self.store.add_token(record)
        self.tokens[record.hash] = record
        return token

    def person(self, authorization: str | None, now: float) -> TokenRecord:
        """Return the token of a person. Raises Unauthorised for one that is unknown, expired or revoked."""
        record = self.tokens.get(hashed(_bearer(authorization)))
        self.check(record, now)
        assert record is not None
        return record

    def check(self, caller: DeviceRecord | TokenRecord | None, now: float) -> None:
        """Raise Unauthorised when a caller may call no longer: also for those whose call is held."""
        if isinstance(caller, DeviceRecord):
            if self.devices[caller.name].revoked is not None:
                raise Unauthorised(f"device {caller.name!r} was revoked", "ask an administrator")
            return
        known = None if caller is None else self.tokens[caller.hash]
        refusal = unusable(known, now)
        if refusal is not None and (known is None or known.purpose in PEOPLE):
            raise refusal

    async def revoke_token(self, id_: str, now: float, roles: Collection[Purpose]) -> TokenRecord:
        """Take a token back, by its id. Raises NotFound, Forbidden for a token of another role than these."""
        found = next((token for token in self.tokens.values() if token.id == id_), None)
        if found is None:
            raise no_token(id_)
        if found.purpose not in roles:
            raise Forbidden(f"the token {id_} is for {found.purpose!r}", "ask an administrator to revoke it")
        await asyncio.to_thread(self.store.revoke_token, found.hash, now)
        self.tokens[found.hash] = replace(self.tokens[found.hash], revoked=now)
        return self.tokens[found.hash]

    # Devices

    def named(self, key: str) -> DeviceRecord | None:
        """Return the device that a key's id is said to be of, None if there is none."""
        name = self.keys.get(key)
        return None if name is None else self.devices[name]

    def device(self, signature: Signature, call: Call, now: float) -> DeviceRecord:
        """Return the device whose key signed a call. Raises Unauthorised, BadSignature."""
        device = self.named(signature.key)
        if device is None:
            raise Unauthorised(
                f"the device's key {signature.key} is not known here", "enrol again with an enrolment token"
            )
        signature.check(load_key(device.key_type, device.public_key), call.method, call.path, call.query)
        self.check(device, now)
        self.nonces.use(signature, now)
        self.seen[device.name] = now
        return device

    async def enrol(
        self, authorization: str | None, signature: Signature, call: Call, request: EnrolRequest, now: float
    ) -> DeviceRecord:
        """Bind a device's name to the public key that signed this call; the same key again changes nothing.

        Raises BadSignature, Unauthorised, Forbidden, BadRequest for a bad name or key, Conflict when another key holds
        the name or this key another one, Pending while a device without a token waits for approval.
        """
        device = _asking(request, now)
        if signature.key != device.id:
            raise BadSignature(f"keyid {signature.key} is not that of the key {device.id}", "sign with the new key")
        signature.check(load_key(device.key_type, device.public_key), call.method, call.path, call.query)
        self.nonces.use(signature, now)
        known = self.devices.get(device.name)
        if known is not None and known.id == device.id:
            self.check(known, now)
            return known
        if authorization is None and known is None:
            raise self.newcomers.ask(device)
        token = self._invitation(authorization, now)
        kept = await asyncio.to_thread(self.store.enrol, replace(device, scope=token.scope), token.hash)
        self._keep(kept)
        self.newcomers.let_in(kept)
        return kept

    def _invitation(self, authorization: str | None, now: float) -> TokenRecord:
        token = self.tokens.get(hashed(_bearer(authorization)))
        self.check(token, now)
        assert token is not None
        if token.purpose != "enrolment":
            raise Forbidden(f"a token for {token.purpose!r} cannot enrol devices", "use an enrolment token")
        return token

    async def approve(self, name: str, scope: tuple[str, ...], id_: str, now: float) -> DeviceRecord:
        """Let a device in that waits. Raises NotFound, Conflict when it has another key than was said."""
        device = self.newcomers.find(name)
        if id_ not in ("", device.id):
            raise Conflict(f"the device that waits as {name!r} has the key {device.id}", "refuse that one first")
        kept = await asyncio.to_thread(self.store.enrol, replace(device, enrolled=now, scope=scope), None)
        self._keep(kept)
        self.newcomers.let_in(kept)
        return kept

    async def refuse(self, name: str, now: float) -> None:
        """Turn a device away that waits, for good unless a person approves it. Raises NotFound."""
        device = replace(self.newcomers.find(name), enrolled=now)
        await asyncio.to_thread(self.store.refuse, device)
        self.newcomers.turn_away(device)

    async def revoke(self, name: str, now: float) -> DeviceRecord:
        """Let a device in no more, from now on; its name stays its own. Raises NotFound."""
        if name not in self.devices:
            raise NotFound(f"no device {name!r}", "list the devices for their names")
        device = self.devices[name]
        if device.revoked is None:
            await asyncio.to_thread(self.store.revoke_device, device.id, now)
            self.devices[name] = replace(device, revoked=now)
        return self.devices[name]

    def unnoted(self) -> dict[str, float]:
        """Return when devices called last, of those that called since this was asked before."""
        fresh = {name: at for name, at in self.seen.items() if self.noted.get(name) != at}
        self.noted.update(fresh)
        return fresh

    def statuses(self) -> list[DeviceStatus]:
        """Return every device, oldest first, then those that wait."""
        return [*map(self.status, self.devices.values()), *map(_waits, self.newcomers.waiting())]

    def status(self, device: DeviceRecord) -> DeviceStatus:
        """Return where an enrolled device stands."""
        state: Literal["enrolled", "revoked"] = "enrolled" if device.revoked is None else "revoked"
        return DeviceStatus(
            device.id, device.name, device.enrolled, self.seen.get(device.name), device.revoked, state, device.scope
        )


def _waits(one: Newcomer) -> DeviceStatus:
    state: Literal["refused", "pending"] = "refused" if one.refused else "pending"
    return DeviceStatus(one.device.id, one.device.name, None, one.asked, None, state)


def wrong_protocol(spoken: int) -> WrongProtocol:
    """Return the error for a caller that speaks another version."""
    older = "the device or program that called" if spoken < PROTOCOL else "the coordinator"
    return WrongProtocol(f"a call in protocol {spoken}, the coordinator speaks {PROTOCOL}", f"upgrade Shoal on {older}")


def _asking(request: EnrolRequest, now: float) -> DeviceRecord:
    name = request.name
    if not 1 <= len(name) <= 64 or not all(c.isalnum() or c in "-_." for c in name):
        raise BadRequest(f"device name {name[:80]!r}", "use 1 to 64 letters, digits, dashes, dots and underscores")
    kind = as_key_type(request.key_type)
    load_key(kind, request.public_key)  # before it is taken apart for its id
    return DeviceRecord(key_id(request.public_key), name, request.public_key, now, key_type=kind)


def _bearer(authorization: str | None) -> str:
    scheme, _, token = (authorization or "").partition(" ")
    if scheme.lower() != "bearer" or not token:
        raise Unauthorised("no token was given", "send it in the header 'Authorization: Bearer TOKEN'")
    return token

"""Who is calling: people by API token, devices by the secret they got when they enrolled.

Secrets are random, 256 bits, and kept as SHA-256 digests; each begins with what it is, so that scanners find leaks.
"""

import base64
import binascii
import hashlib
import secrets
from dataclasses import dataclass, field, replace
from typing import Literal, TypeAlias

from shoal.core.errors import BadRequest, Conflict, Forbidden, Unauthorised, WrongProtocol
from shoal.store.store import DeviceRecord, PersonRole, Store, TokenRecord
from shoal.wire.messages import PROTOCOL, DeviceStatus, EnrolReply, EnrolRequest

Purpose: TypeAlias = PersonRole | Literal["enrolment"]

MAY: dict[str, frozenset[str]] = {
    "admin": frozenset({"read", "publish", "devices"}),
    "researcher": frozenset({"read", "publish"}),
    "owner": frozenset({"read", "devices"}),
    "viewer": frozenset({"read"}),
}
"""What each of the fixed roles may do."""


def hashed(secret: str) -> str:
    """Return the digest under which a secret is kept."""
    return hashlib.sha256(secret.encode()).hexdigest()


@dataclass(slots=True)
class Identities:
    """The known devices and tokens, in memory, written through to the store."""

    store: Store
    devices: dict[str, DeviceRecord] = field(default_factory=dict[str, DeviceRecord])
    tokens: dict[str, TokenRecord] = field(default_factory=dict[str, TokenRecord])
    secrets: dict[str, str] = field(default_factory=dict[str, str])
    seen: dict[str, float] = field(default_factory=dict[str, float])
    noted: dict[str, float] = field(default_factory=dict[str, float])

    @classmethod
    def load(cls, store: Store) -> "Identities":
        """Read what the store knows."""
        known = cls(store)
        for device in store.devices():
            known._keep(device)
        known.noted = dict(store.seen())
        known.seen = dict(known.noted)
        known.tokens = {token.hash: token for token in store.tokens()}
        return known

    def _keep(self, device: DeviceRecord) -> None:
        former = self.devices.get(device.name)
        if former is not None:
            self.secrets.pop(former.secret_hash, None)
        self.devices[device.name] = device
        self.secrets[device.secret_hash] = device.name

    def issue(self, purpose: Purpose, now: float, expires: float | None = None) -> str:
        """Make a token, keep its digest and return it: the only time it can be read."""
        token = f"shoal_{purpose}_{secrets.token_urlsafe(32)}"
        record = TokenRecord(hashed(token), purpose, now, expires)
        self.store.add_token(record)
        self.tokens[record.hash] = record
        return token

    def _token(self, authorization: str | None, now: float) -> TokenRecord | None:
        record = self.tokens.get(hashed(_bearer(authorization)))
        if record is not None and record.expires is not None and record.expires <= now:
            raise Unauthorised("the token has expired", "ask an administrator for a new one")
        return record

    def person(self, authorization: str | None, action: str, now: float) -> TokenRecord:
        """Return the token of a person who may do `action`. Raises Unauthorised or Forbidden."""
        record = self._token(authorization, now)
        if record is None:
            raise Unauthorised("the token is not known here", "give an API token of this coordinator")
        if action not in MAY.get(record.purpose, frozenset()):
            raise Forbidden(f"a token for {record.purpose!r} may not {action}", f"use one of {sorted(_who(action))}")
        return record

    def device(self, authorization: str | None, now: float) -> DeviceRecord:
        """Return the device whose secret this is. Raises Unauthorised."""
        name = self.secrets.get(hashed(_bearer(authorization)))
        if name is None:
            raise Unauthorised("the device's secret is not known here", "enrol again with an enrolment token")
        device = self.devices[name]
        if device.revoked is not None:
            raise Unauthorised(f"device {name!r} was revoked", "ask an administrator")
        self.seen[name] = now
        return device

    def anyone(self, authorization: str | None, now: float) -> DeviceRecord | None:
        """Pass whoever may read: a device, which is returned, or a person of any role."""
        if hashed(_bearer(authorization)) in self.secrets:
            return self.device(authorization, now)
        self.person(authorization, "read", now)
        return None

    def enrol(self, authorization: str | None, request: EnrolRequest, now: float) -> EnrolReply:
        """Bind a device's name to its public key; the same key again gets a fresh secret.

        Raises Unauthorised, Forbidden, BadRequest for a bad name or key, Conflict when another key holds the name.
        """
        token = self._token(authorization, now)
        if token is None:
            raise Unauthorised("the enrolment token is not known here", "use the one that the coordinator printed")
        if token.purpose not in ("enrolment", "admin"):
            raise Forbidden(f"a token for {token.purpose!r} cannot enrol devices", "use an enrolment token")
        _check_name(request.name)
        _check_key(request.public_key)
        secret = f"shoal_device_{secrets.token_urlsafe(32)}"
        known = self.devices.get(request.name)
        if known is not None and (known.public_key != request.public_key or known.revoked is not None):
            raise Conflict(
                f"the name {request.name!r} belongs to another device",
                "choose another name, or start the agent with the home that enrolled it",
            )
        if known is None:
            device = DeviceRecord(secrets.token_hex(8), request.name, request.public_key, hashed(secret), now)
        else:
            device = replace(known, secret_hash=hashed(secret))
        self.store.add_device(device)
        self._keep(device)
        return EnrolReply(device.id, secret)

    def leave(self, device: DeviceRecord, now: float) -> None:
        """Let a device go for good: its secret is worth nothing from now on, its name stays its own."""
        self.store.revoke_device(device.id, now)
        self.devices[device.name] = replace(device, revoked=now)

    def unnoted(self) -> dict[str, float]:
        """Return when devices called last, of those that called since this was asked before."""
        fresh = {name: at for name, at in self.seen.items() if self.noted.get(name) != at}
        self.noted.update(fresh)
        return fresh

    def statuses(self) -> list[DeviceStatus]:
        """Return every device, oldest first."""
        return [DeviceStatus(d.id, d.name, d.enrolled, self.seen.get(d.name), d.revoked) for d in self.devices.values()]


def wrong_protocol(spoken: int) -> WrongProtocol:
    """Return the error for a caller that speaks another version."""
    older = "the device or program that called" if spoken < PROTOCOL else "the coordinator"
    return WrongProtocol(f"a call in protocol {spoken}, the coordinator speaks {PROTOCOL}", f"upgrade Shoal on {older}")


def _who(action: str) -> list[str]:
    return [role for role, actions in MAY.items() if action in actions]


def _bearer(authorization: str | None) -> str:
    scheme, _, token = (authorization or "").partition(" ")
    if scheme.lower() != "bearer" or not token:
        raise Unauthorised("no token was given", "send it in the header 'Authorization: Bearer TOKEN'")
    return token


def _check_name(name: str) -> None:
    if not 1 <= len(name) <= 64 or not all(c.isalnum() or c in "-_." for c in name):
        raise BadRequest(f"device name {name[:80]!r}", "use 1 to 64 letters, digits, dashes, dots and underscores")


def _check_key(key: str) -> None:
    try:
        size = len(base64.b64decode(key, validate=True))
    except binascii.Error as error:
        raise BadRequest(f"public key {key[:80]!r} is not base64", "send the raw Ed25519 key in base64") from error
    if size != 32:
        raise BadRequest(f"a public key of {size} bytes", "send the raw Ed25519 key: 32 bytes in base64")

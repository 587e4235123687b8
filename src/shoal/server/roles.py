"""Who may call what: the one table. docs/security.md shows it, and a test walks every route with every caller."""

from types import MappingProxyType
from typing import Literal, TypeAlias

from shoal.store.store import PersonRole

Caller: TypeAlias = PersonRole | Literal["device", "newcomer", "everyone"]
"""A person's role; a device by its key; a device that is not enrolled, by the key that it shows; or whoever calls."""

ADMIN: frozenset[Caller] = frozenset({"admin"})
RESEARCH: frozenset[Caller] = ADMIN | {"researcher"}
FLEET: frozenset[Caller] = ADMIN | {"owner"}
PEOPLE: frozenset[Caller] = frozenset({"admin", "researcher", "owner", "viewer"})
DEVICE: frozenset[Caller] = frozenset({"device"})
NEWCOMER: frozenset[Caller] = frozenset({"newcomer"})
EVERYONE: frozenset[Caller] = frozenset({"everyone"})
NOBODY: frozenset[Caller] = frozenset()

CHECK_IN = "POST /v1/checkin"

CALLS: MappingProxyType[str, frozenset[Caller]] = MappingProxyType(
    {
        "POST /v1/devices": NEWCOMER,
        "GET /v1/devices": PEOPLE,
        "DELETE /v1/devices/me": DEVICE,
        "POST /v1/devices/{name}/approve": FLEET,
        "POST /v1/devices/{name}/refuse": FLEET,
        "POST /v1/devices/{name}/revoke": FLEET,
        CHECK_IN: DEVICE,
        "POST /v1/assignments/{assignment}/renew": DEVICE,
        "POST /v1/assignments/{assignment}/release": DEVICE,
        "POST /v1/assignments/{assignment}/report": DEVICE,
        "POST /v1/assignments/{assignment}/upload": DEVICE,
        "HEAD /v1/assignments/{assignment}/upload": DEVICE,
        "PATCH /v1/assignments/{assignment}/upload": DEVICE,
        "DELETE /v1/assignments/{assignment}/upload": DEVICE,
        "POST /v1/tokens": FLEET,
        "GET /v1/tokens": FLEET,
        "DELETE /v1/tokens/{token}": FLEET,
        "POST /v1/tasks": RESEARCH,
        "GET /v1/tasks": PEOPLE,
        "GET /v1/tasks/{task}": PEOPLE | DEVICE,
        "GET /v1/tasks/{task}/status": PEOPLE,
        "GET /v1/tasks/{task}/latest": PEOPLE | DEVICE,
        "GET /v1/tasks/{task}/versions": PEOPLE,
        "GET /v1/tasks/{task}/rounds": PEOPLE,
        "POST /v1/tasks/{task}/cancel": RESEARCH,
        "POST /v1/tasks/{task}/pause": RESEARCH,
        "POST /v1/tasks/{task}/resume": RESEARCH,
        "POST /v1/tasks/{task}/extend": RESEARCH,
        "GET /v1/tasks/{task}/pins": PEOPLE,
        "PUT /v1/tasks/{task}/pins/{number}": RESEARCH,
        "DELETE /v1/tasks/{task}/pins/{number}": RESEARCH,
        "GET /v1/tasks/{task}/models": PEOPLE,
        "GET /v1/tasks/{task}/heads": PEOPLE,
        "POST /v1/tasks/{task}/promote": RESEARCH,
        "POST /v1/tasks/{task}/rollback": RESEARCH,
        "POST /v1/tasks/{task}/rewind": RESEARCH,
        "POST /v1/tasks/{task}/models/{number}/notes": RESEARCH,
        "POST /v1/tasks/{task}/unfit": DEVICE,
        "GET /v1/tasks/{task}/log": PEOPLE,
        "GET /v1/events": PEOPLE,
        "POST /v1/session": EVERYONE,
        "GET /v1/session": PEOPLE,
        "DELETE /v1/session": EVERYONE,
        "GET /v1/key": EVERYONE,
        "POST /v1/blobs": RESEARCH,
        "GET /v1/blobs/{digest}": PEOPLE | DEVICE,
        "HEAD /v1/blobs/{digest}": PEOPLE | DEVICE,
        "GET /metrics": PEOPLE,
        "GET /healthz": EVERYONE,
        "GET /openapi.json": EVERYONE,
    }
)
"""Method and path of every call, and who may make it; what is not here, nobody may."""

HERE = frozenset({"GET /metrics"})
"""What callers on this machine may call without showing who they are."""

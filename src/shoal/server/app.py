"""The ASGI application around one coordinator."""

from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from importlib.metadata import version
from typing import Any

import msgspec
from fastapi import FastAPI, Request, Response
from fastapi.exceptions import RequestValidationError
from fastapi.openapi.utils import get_openapi
from starlette.exceptions import HTTPException

from shoal.core.errors import (
    BadRequest,
    BadSignature,
    Conflict,
    NotFound,
    OutOfRange,
    ShoalError,
    UnknownEncoding,
    WrongOffset,
)
from shoal.core.receipt import Receipt
from shoal.core.task import TaskSpec
from shoal.rounds.record import RoundRecord
from shoal.server import (
    routes_blobs,
    routes_devices,
    routes_enrolment,
    routes_key,
    routes_live,
    routes_metrics,
    routes_pins,
    routes_session,
    routes_tasks,
    routes_tokens,
    routes_uploads,
    routes_versions,
)
from shoal.server.calls import coordinator, gives, reply
from shoal.server.coordinator import Coordinator
from shoal.server.dashboard import add_dashboard
from shoal.server.metrics import CountBytes
from shoal.server.quick import Quick, Table
from shoal.wire.messages import (
    PROTOCOL,
    ApproveRequest,
    BlobReply,
    CancelRequest,
    CheckInReply,
    CheckInRequest,
    DeviceStatus,
    EnrolReply,
    EnrolRequest,
    ErrorMessage,
    ExtendRequest,
    HeadsHere,
    HeadsReply,
    Health,
    KeyReply,
    LatestReply,
    NoteRequest,
    Pins,
    PromoteRequest,
    ReleaseRequest,
    RenewReply,
    ReportHead,
    RewindRequest,
    RollBackRequest,
    TaskStatus,
    TokenRequest,
    TokenStatus,
    UnfitRequest,
    VersionRecord,
    VersionsReply,
    encode,
)
from shoal.wire.resumable import OFFSET
from shoal.wire.watching import Hello, LogEntry, LogReply, SessionReply, SignInRequest, TaskView

MESSAGES: tuple[type[Any], ...] = (
    ApproveRequest,
    BlobReply,
    CancelRequest,
    CheckInReply,
    CheckInRequest,
    DeviceStatus,
    EnrolReply,
    EnrolRequest,
    ErrorMessage,
    ExtendRequest,
    HeadsHere,
    HeadsReply,
    Health,
    Hello,
    KeyReply,
    LatestReply,
    LogEntry,
    LogReply,
    NoteRequest,
    Pins,
    PromoteRequest,
    Receipt,
    ReleaseRequest,
    RenewReply,
    ReportHead,
    RewindRequest,
    RollBackRequest,
    SessionReply,
    SignInRequest,
    UnfitRequest,
    VersionRecord,
    RoundRecord,
    TaskSpec,
    TaskStatus,
    TaskView,
    TokenRequest,
    TokenStatus,
    VersionsReply,
)
"""Every type of message, for the OpenAPI document."""

SCHEMES = {
    "bearer": {"type": "http", "scheme": "bearer", "description": "People: an API token of one of four roles."},
    "signature": {
        "type": "apiKey",
        "in": "header",
        "name": "Signature",
        "description": "Devices: RFC 9421 with Signature-Input and Content-Digest, as docs/security.md says.",
    },
}

ROUTES = [
    route
    for routes in (
        routes_enrolment,
        routes_devices,
        routes_tokens,
        routes_tasks,
        routes_versions,
        routes_pins,
        routes_blobs,
        routes_uploads,
        routes_key,
        routes_metrics,
        routes_session,
        routes_live,
    )
    for route in routes.router.routes
]
"""Every route but that of the health check."""

QUICK = Table.of(ROUTES)

RETRY_SECONDS = 2
"""What a caller is told to wait after a 503."""


def build_app(served: Coordinator, *, metrics_public: bool = False) -> FastAPI:
    """Return the application; starting and stopping it starts and stops the coordinator.

    With `metrics_public` everybody may read /metrics; without, this machine and people of any role.
    """

    @asynccontextmanager
    async def lifespan(_: FastAPI) -> AsyncIterator[None]:
        await served.start()
        yield
        await served.stop()

    app = FastAPI(
        title="Shoal coordinator",
        version=version("shoal"),
        lifespan=lifespan,
        docs_url=None,
        redoc_url=None,
        exception_handlers={
            ShoalError: _refused,
            HTTPException: _unrouted,
            RequestValidationError: _misread,
            Exception: _failed,
        },
    )
    app.state.coordinator = served
    app.state.metrics_public = metrics_public
    app.add_middleware(Quick, table=QUICK, refused=_refused)
    app.add_middleware(CountBytes, metrics=served.metrics)
    app.router.routes.extend(ROUTES)
    app.add_api_route("/healthz", _health, responses=gives(Health), tags=["health"])
    add_dashboard(app)
    app.openapi = lambda: _openapi(app)  # type: ignore[method-assign]
    return app


async def _health(request: Request) -> Response:
    """Say that the coordinator serves."""
    return reply(Health("ok", version("shoal"), PROTOCOL, coordinator(request).clock()))


async def _refused(request: Request, error: Exception) -> Response:
    if not isinstance(error, ShoalError):
        raise error
    first = error.receipt if isinstance(error, Conflict) else None
    receipt = coordinator(request).key.sign(first) if first is not None else None
    message = ErrorMessage(error.code, error.problem, error.fix, _server_time(request, error), receipt)
    headers = {"Retry-After": str(RETRY_SECONDS)} if error.status in (503, 507) else {}
    if isinstance(error, UnknownEncoding):
        headers["Accept-Encoding"] = "identity"  # what would be taken (RFC 9110, 15.5.16)
    if isinstance(error, WrongOffset):
        headers[OFFSET] = str(error.offset)
    if isinstance(error, OutOfRange):
        headers["Content-Range"] = f"bytes */{error.size}"
    if error.status == 408:
        headers["Connection"] = "close"  # the rest of the body is not waited for (RFC 9110, 15.5.9)
    return Response(encode(message), error.status, headers, media_type="application/json")


def _server_time(request: Request, error: ShoalError) -> float:
    here = coordinator(request)
    # what a device is to sign with next: the time that its signature is judged by
    return here.identities.nonces.now(here.clock()) if isinstance(error, BadSignature) else here.clock()


async def _misread(request: Request, error: Exception) -> Response:
    if not isinstance(error, RequestValidationError):
        raise error
    wrong = "; ".join(f"{part['loc'][-1]!r} is {str(part['input'])[:80]!r}, {part['msg']}" for part in error.errors())
    return await _refused(request, BadRequest(f"{request.url.path}: {wrong}", "see /openapi.json for what it takes"))


async def _failed(request: Request, error: Exception) -> Response:
    # the error goes on to the log; here it would tell a stranger what is inside
    del error
    problem = f"{request.method} {request.url.path} failed inside the coordinator"
    return await _refused(request, ShoalError(problem, "its log says why; try again, or tell its administrator"))


async def _unrouted(request: Request, error: Exception) -> Response:
    if not isinstance(error, HTTPException):
        raise error
    problem = NotFound(f"{request.method} {request.url.path}: {error.detail}", "see /openapi.json for what there is")
    message = ErrorMessage(problem.code, problem.problem, problem.fix, coordinator(request).clock())
    return Response(encode(message), error.status_code, media_type="application/json")


def _openapi(app: FastAPI) -> dict[str, Any]:
    if app.openapi_schema is None:
        document = get_openapi(title=app.title, version=app.version, routes=app.routes)
        _, schemas = msgspec.json.schema_components(MESSAGES, ref_template="#/components/schemas/{name}")
        parts: dict[str, Mapping[str, Any]] = document.setdefault("components", {})
        parts["schemas"] = {**parts.get("schemas", {}), **schemas}
        parts["securitySchemes"] = SCHEMES
        document["security"] = [{name: []} for name in SCHEMES]
        app.openapi_schema = document
    return app.openapi_schema

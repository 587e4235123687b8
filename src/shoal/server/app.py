"""The ASGI application around one coordinator."""

from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from importlib.metadata import version
from typing import Any

import msgspec
from fastapi import FastAPI, Request, Response
from fastapi.openapi.utils import get_openapi
from starlette.exceptions import HTTPException

from shoal.core.errors import Conflict, NotFound, ShoalError
from shoal.core.task import TaskSpec
from shoal.core.types import Receipt
from shoal.server import routes_blobs, routes_devices, routes_tasks
from shoal.server.calls import coordinator, gives, reply
from shoal.server.coordinator import Coordinator
from shoal.wire.messages import (
    PROTOCOL,
    BlobReply,
    CancelRequest,
    CheckInReply,
    CheckInRequest,
    DeviceStatus,
    EnrolReply,
    EnrolRequest,
    ErrorMessage,
    Health,
    ReleaseRequest,
    RenewReply,
    ReportHead,
    TaskStatus,
    VersionsReply,
    encode,
)

MESSAGES: tuple[type[Any], ...] = (
    BlobReply,
    CancelRequest,
    CheckInReply,
    CheckInRequest,
    DeviceStatus,
    EnrolReply,
    EnrolRequest,
    ErrorMessage,
    Health,
    Receipt,
    ReleaseRequest,
    RenewReply,
    ReportHead,
    TaskSpec,
    TaskStatus,
    VersionsReply,
)
"""Every type of message, for the OpenAPI document."""

RETRY_SECONDS = 2
"""What a caller is told to wait after a 503."""


def build_app(served: Coordinator) -> FastAPI:
    """Return the application; starting and stopping it starts and stops the coordinator."""

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
        exception_handlers={ShoalError: _refused, HTTPException: _unrouted},
    )
    app.state.coordinator = served
    for routes in (routes_devices, routes_tasks, routes_blobs):
        app.include_router(routes.router)
    app.add_api_route("/healthz", _health, responses=gives(Health), tags=["health"])
    app.openapi = lambda: _openapi(app)  # type: ignore[method-assign]
    return app


async def _health() -> Response:
    """Say that the coordinator serves."""
    return reply(Health("ok", version("shoal"), PROTOCOL))


async def _refused(request: Request, error: Exception) -> Response:
    if not isinstance(error, ShoalError):
        raise error
    receipt = error.receipt if isinstance(error, Conflict) else None
    message = ErrorMessage(error.code, error.problem, error.fix, coordinator(request).clock(), receipt)
    headers = {"Retry-After": str(RETRY_SECONDS)} if error.status in (503, 507) else {}
    if error.status == 408:
        headers["Connection"] = "close"  # the rest of the body is not waited for (RFC 9110, 15.5.9)
    return Response(encode(message), error.status, headers, media_type="application/json")


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
        parts["securitySchemes"] = {"bearer": {"type": "http", "scheme": "bearer"}}
        document["security"] = [{"bearer": []}]
        app.openapi_schema = document
    return app.openapi_schema

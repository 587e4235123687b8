"""Answering calls without what a web framework does around each: most calls are check-ins that bring nothing.

FastAPI describes every route and calls those whose parameters it must convert. The others take the request and parts
of the path as they are: these are called straight, which takes a third of the processor time.
"""

import inspect
from collections.abc import Awaitable, Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from re import Pattern

from fastapi.routing import APIRoute
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import BaseRoute
from starlette.types import ASGIApp, Receive, Scope, Send

from shoal.core.errors import ShoalError
from shoal.server.admission import admitted
from shoal.wire import tracing

Endpoint = Callable[..., Awaitable[Response]]


@dataclass(frozen=True, slots=True)
class Entry:
    """A route: its path with names for what varies, and what is called straight, None for the framework to call it."""

    path: str
    endpoint: Endpoint | None


@dataclass(frozen=True, slots=True)
class Table:
    """The routes by method and path, or by pattern where parts of a path vary."""

    fixed: Mapping[tuple[str, str], Entry]
    varying: Mapping[str, Sequence[tuple[Pattern[str], Entry]]]

    @classmethod
    def of(cls, routes: Iterable[BaseRoute]) -> "Table":
        """Return the table of these routes, in their order."""
        fixed: dict[tuple[str, str], Entry] = {}
        varying: dict[str, list[tuple[Pattern[str], Entry]]] = {}
        for route in routes:
            if isinstance(route, APIRoute):
                entry = Entry(route.path, route.endpoint if _plain(route) else None)
                for method in route.methods or ():
                    if route.param_convertors:
                        varying.setdefault(method, []).append((route.path_regex, entry))
                    else:
                        fixed[method, route.path] = entry
        return cls(fixed, varying)

    def find(self, method: str, path: str) -> tuple[Entry, Mapping[str, str]] | None:
        """Return the entry of a call with the parts of its path; None when no route takes it."""
        if (method, path) in self.fixed:
            return self.fixed[method, path], {}
        for pattern, entry in self.varying.get(method, ()):
            if (found := pattern.match(path)) is not None:
                return entry, found.groupdict()
        return None


def _plain(route: APIRoute) -> bool:
    parameters = inspect.signature(route.endpoint).parameters.values()
    parts = route.param_convertors
    return not route.dependencies and all(
        given.annotation is Request or (given.annotation is str and given.name in parts) for given in parameters
    )


class Quick:
    """An ASGI application around another one; it lets only callers pass to a route who may call it (`admission`)."""

    def __init__(
        self, app: ASGIApp, table: Table, refused: Callable[[Request, Exception], Awaitable[Response]]
    ) -> None:
        self._app = app
        self._table = table
        self._refused = refused

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer one call."""
        found = self._table.find(scope["method"], scope["path"]) if scope["type"] == "http" else None
        if found is None:
            await self._app(scope, receive, send)
            return
        request = Request(scope, receive, send)
        entry, parts = found
        try:
            admitted(request, entry.path)
        except ShoalError as error:
            await (await self._refused(request, error))(scope, receive, send)
            return
        with tracing.served(scope["headers"], scope["method"], entry.path):
            await self._answer(request, entry, parts, send)

    async def _answer(self, request: Request, entry: Entry, parts: Mapping[str, str], send: Send) -> None:
        try:
            response = None if entry.endpoint is None else await entry.endpoint(request, **parts)
        except ShoalError as error:
            response = await self._refused(request, error)
        await (response or self._app)(request.scope, request.receive, send)

"""What browsers need: pages of the coordinator's own, and leave for the pages of other origins to call it.

A page and its scripts come from one folder under /page/. Their content security policy lets them run only what lies
there, WebAssembly included, and call only this coordinator; it is isolated from pages of other origins, so that
WebAssembly may use threads. A page of another origin may call once that origin is
named (https://fetch.spec.whatwg.org/#http-cors-protocol): exactly, and never with cookies, since callers are known by
the key that signs their calls, or by the bearer token that they send.
"""

from collections.abc import Sequence
from pathlib import Path
from urllib.parse import urlsplit

from fastapi import FastAPI
from fastapi.middleware.cors import CORSMiddleware
from starlette.responses import Response
from starlette.staticfiles import StaticFiles
from starlette.types import Scope

from shoal.core.errors import ConfigurationError
from shoal.wire.digests import CONTENT_DIGEST, REPR_DIGEST
from shoal.wire.messages import HELD, SPOKEN
from shoal.wire.resumable import COMPLETE, LENGTH, OFFSET
from shoal.wire.signing import INPUT, SIGNATURE

POLICY = "; ".join(
    (
        "default-src 'none'",
        "script-src 'self' 'wasm-unsafe-eval'",
        "connect-src 'self'",
        "style-src 'self'",
        "img-src 'self'",
        "manifest-src 'self'",
        "base-uri 'none'",
        "form-action 'none'",
        "frame-ancestors 'none'",
    )
)

HEADERS = {
    "Content-Security-Policy": POLICY,
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "no-referrer",
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cross-Origin-Embedder-Policy": "require-corp",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Service-Worker-Allowed": "/page/",
    "Cache-Control": "no-cache",
}

PREFLIGHT_SECONDS = 600
"""For how long a browser may remember that an origin may call; Chromium keeps it for at most two hours."""

ASKED = ("Authorization", "Content-Type", CONTENT_DIGEST, INPUT, SIGNATURE, OFFSET, LENGTH, COMPLETE, REPR_DIGEST)
"""What a device's calls carry beside the usual headers: who signs them, and where an upload stands."""

DEFAULT_PORTS = {"http": 80, "https": 443}


class Page(StaticFiles):
    """The files of one folder; nothing above it, and no link that leads out of it."""

    def __init__(self, folder: Path) -> None:
        if not (folder / "index.html").is_file():
            raise ConfigurationError(f"no page in {folder}", "give a folder with an index.html")
        super().__init__(directory=folder, html=True)

    async def get_response(self, path: str, scope: Scope) -> Response:
        """Return a file with the headers of every page."""
        response = await super().get_response(path, scope)
        response.headers.update(HEADERS)
        return response


def open_to_browsers(app: FastAPI, folder: Path | None, origins: Sequence[str]) -> None:
    """Serve a folder under /page/, if there is one, and let the pages of these origins call.

    Raises ConfigurationError for a folder without a page and for what is no exact origin.
    """
    for origin in origins:
        _check_origin(origin)
    if folder is not None:
        app.mount("/page", Page(folder), name="page")
    if origins:
        _allow(app, origins)


def _allow(app: FastAPI, origins: Sequence[str]) -> None:
    app.add_middleware(
        CORSMiddleware,
        allow_origins=list(origins),
        allow_methods=["GET", "HEAD", "POST", "PATCH", "DELETE"],
        allow_headers=[*ASKED, SPOKEN],
        expose_headers=[HELD, "Retry-After", OFFSET],
        max_age=PREFLIGHT_SECONDS,
    )


def _check_origin(origin: str) -> None:
    fix = "give what browsers send, such as https://app.example.org or http://localhost:5173"
    try:
        parts = urlsplit(origin)
        port = parts.port
    except ValueError as error:
        raise ConfigurationError(f"origin {origin!r} ({error})", fix) from error
    host = parts.netloc.rpartition("@")[2]
    exact = f"{parts.scheme}://{host}".lower()
    if parts.scheme not in DEFAULT_PORTS or not parts.hostname or "*" in origin or origin != exact:
        raise ConfigurationError(f"origin {origin!r} is not scheme://host[:port] in lower case", fix)
    if port == DEFAULT_PORTS[parts.scheme]:
        raise ConfigurationError(f"origin {origin!r} names its scheme's own port", fix)

"""The dashboard: its files come with the package, are read once, and need no other host.

Their content security policy lets them run and load only what lies here and call only this coordinator. They build
every element by the DOM's own functions, never from text, so that no name of a device becomes markup.
"""

import gzip
import hashlib
import mimetypes
from dataclasses import dataclass
from importlib.resources import files
from importlib.resources.abc import Traversable

from fastapi import FastAPI, Request, Response
from starlette.exceptions import HTTPException
from starlette.routing import Route

POLICY = "; ".join(
    (
        "default-src 'none'",
        "script-src 'self'",
        "connect-src 'self'",
        "style-src 'self'",
        "img-src 'self'",
        "base-uri 'none'",
        "form-action 'none'",
        "frame-ancestors 'none'",
        "require-trusted-types-for 'script'",
    )
)

HEADERS = {
    "Content-Security-Policy": POLICY,
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "no-referrer",
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Cache-Control": "no-cache",
    "Vary": "Accept-Encoding",
}


@dataclass(frozen=True, slots=True)
class File:
    """One file, as it is and compressed; its tag changes with its bytes."""

    kind: str
    tag: str
    plain: bytes
    packed: bytes

    @classmethod
    def of(cls, name: str, data: bytes) -> "File":
        """Return a file under the media type that its name says."""
        kind = "text/javascript" if name.endswith(".js") else mimetypes.guess_type(name)[0] or "text/plain"
        return cls(kind, f'"{hashlib.sha256(data).hexdigest()[:32]}"', data, gzip.compress(data, mtime=0))

    def answer(self, request: Request) -> Response:
        """Return the file as its reader takes it, or that it has it."""
        headers = {**HEADERS, "ETag": self.tag}
        if self.tag in request.headers.get("if-none-match", ""):
            return Response(status_code=304, headers=headers)
        if "gzip" in request.headers.get("accept-encoding", ""):
            headers["Content-Encoding"] = "gzip"
            return Response(self.packed, media_type=self.kind, headers=headers)
        return Response(self.plain, media_type=self.kind, headers=headers)


def add_dashboard(app: FastAPI) -> None:
    """Serve the dashboard at /."""
    found = dict(_walk(files("shoal.server").joinpath("static", "dashboard")))

    async def index(request: Request) -> Response:
        return found["index.html"].answer(request)

    async def file(request: Request) -> Response:
        name = request.path_params["name"]
        if name not in found:
            raise HTTPException(404, "the dashboard has no such file")
        return found[name].answer(request)

    app.router.routes += [Route("/", index), Route("/dashboard/{name:path}", file)]


def _walk(folder: Traversable, prefix: str = "") -> list[tuple[str, File]]:
    result = []
    for entry in folder.iterdir():
        name = f"{prefix}{entry.name}"
        if entry.is_dir():
            result += _walk(entry, f"{name}/")
        else:
            result.append((name, File.of(name, entry.read_bytes())))
    return result

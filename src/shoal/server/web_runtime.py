"""The files of an ONNX runtime for browsers, for the pages that a coordinator serves.

They take 14 MB, so they are not in Shoal's own package: they come from the package `shoal-web`, which is found when it
is installed, or from a folder that somebody names. The address of a file holds the digest of all of them, so that
browsers may keep it for ever (RFC 8246).
"""

import asyncio
import gzip
import hashlib
from dataclasses import dataclass, field
from importlib.util import find_spec
from pathlib import Path
from typing import Self

from fastapi import FastAPI, Request, Response
from starlette.responses import FileResponse, JSONResponse

from shoal.core.errors import ConfigurationError, NotFound
from shoal.server.page import HEADERS
from shoal.wire.ranges import accepts

PACKAGE = "shoal_web"
FOLDER = "files"

NEEDED = ("ort.wasm.min.mjs", "ort-wasm-simd-threaded.mjs", "ort-wasm-simd-threaded.wasm")
"""What onnxruntime-web loads for WebAssembly."""

WEBGPU = ("ort.webgpu.min.mjs", "ort-wasm-simd-threaded.asyncify.mjs", "ort-wasm-simd-threaded.asyncify.wasm")
"""What it loads for a graphics processor; served where a folder holds all three."""

KINDS = {".mjs": "text/javascript", ".wasm": "application/wasm"}
LEVEL = 6
FOR_EVER = "public, max-age=31536000, immutable"
MISSING = "on the coordinator's machine `pip install shoal-web`, or start `shoal server --web-runtime DIR`"


@dataclass(frozen=True, slots=True, eq=False)
class WebRuntime:
    """The files of one folder, by name, and the digest of all. Each is compressed once, for its first caller."""

    files: dict[str, Path]
    digest: str
    packed: dict[str, asyncio.Task[bytes]] = field(default_factory=dict[str, asyncio.Task[bytes]])

    @classmethod
    def read(cls, folder: Path) -> Self:
        """Read what a folder holds of onnxruntime-web. Raises ConfigurationError when a file is missing."""
        missing = [name for name in NEEDED if not (folder / name).is_file()]
        if missing:
            raise ConfigurationError(
                f"{folder} lacks {', '.join(missing)}", "give the folder dist/ of the npm package onnxruntime-web"
            )
        webgpu = WEBGPU if all((folder / name).is_file() for name in WEBGPU) else ()
        files = {name: folder / name for name in (*NEEDED, *webgpu)}
        return cls(files, _digest(files))

    async def file(self, request: Request, name: str) -> Response:
        """Return one file, as gzip to a caller that takes it. Raises NotFound."""
        path = self.files.get(name)
        if path is None:
            raise NotFound(f"no file {name} of a runtime for browsers", f"there are {', '.join(self.files)}")
        headers = {**HEADERS, "Cache-Control": FOR_EVER, "Vary": "Accept-Encoding"}
        kind = KINDS[path.suffix]
        if not accepts(request.headers.get("accept-encoding"), "gzip"):
            return FileResponse(path, headers=headers, media_type=kind)
        if name not in self.packed:
            self.packed[name] = asyncio.create_task(asyncio.to_thread(_packed, path))
        data = await asyncio.shield(self.packed[name])
        return Response(data, headers={**headers, "Content-Encoding": "gzip"}, media_type=kind)


def installed() -> Path | None:
    """Return the folder of the package `shoal-web`, without running any code of it; None when it is not installed."""
    spec = find_spec(PACKAGE)
    places = spec.submodule_search_locations if spec is not None else None
    return Path(places[0]) / FOLDER if places else None


def open_runtime(app: FastAPI, folder: Path | None) -> None:
    """Serve the files of `folder`, else those of `shoal-web`, under /runtime/.

    GET /runtime/ tells where they are, or how to get them. Raises ConfigurationError for a folder without them.
    """
    folder = folder or installed()
    runtime = None if folder is None else WebRuntime.read(folder)

    async def place() -> Response:
        if runtime is None:
            raise NotFound("this coordinator has no runtime for browsers", MISSING)
        return JSONResponse({"from": f"{runtime.digest}/", "files": list(runtime.files)}, headers=HEADERS)

    async def file(request: Request, digest: str, name: str) -> Response:
        if runtime is None or digest != runtime.digest:
            raise NotFound(f"no runtime {digest}", "GET /runtime/ tells which one there is")
        return await runtime.file(request, name)

    app.add_api_route("/runtime/", place, include_in_schema=False)
    app.add_api_route("/runtime/{digest}/{name}", file, methods=["GET", "HEAD"], include_in_schema=False)


def _digest(files: dict[str, Path]) -> str:
    """Return the SHA-256 of names and contents."""
    found = hashlib.sha256()
    for name, path in files.items():
        with path.open("rb") as file:
            found.update(f"{name} {hashlib.file_digest(file, 'sha256').hexdigest()}\n".encode())
    return found.hexdigest()


def _packed(path: Path) -> bytes:
    return gzip.compress(path.read_bytes(), LEVEL, mtime=0)

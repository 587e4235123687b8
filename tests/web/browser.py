"""Headless Chromium for tests, driven by playwright: one launch, scripts in JavaScript, answers as values."""

import json
import os
import shutil
import subprocess
from pathlib import Path
from types import TracebackType
from typing import Any, NoReturn, Self

import pytest

TOP = Path(__file__).parents[2]
DEVICE = TOP / "web/device"
BUILT = DEVICE / "dist"
RUNTIME = DEVICE / "node_modules/onnxruntime-web/dist"
FILES = ("ort.wasm.min.mjs", "ort-wasm-simd-threaded.mjs", "ort-wasm-simd-threaded.wasm")
"""What a page needs of the runtime."""

END_SECONDS = 20


def program(name: str) -> str:
    """Return where a program is. Without it a test fails in CI and is skipped elsewhere."""
    return shutil.which(name) or missing(f"no {name} on this machine: `make browser` installs what can be")


def built() -> Path:
    """Return the folder of the built device. Without it a test fails in CI and is skipped elsewhere."""
    return BUILT if (BUILT / "index.js").exists() else missing("web/device is not built: `make browser` builds it")


def missing(reason: str) -> NoReturn:
    if os.environ.get("CI") == "true":
        pytest.fail(reason)
    pytest.skip(reason)


class BrowserFailed(Exception):
    """A script failed in the browser or in the program that drives it."""


class Browser:
    """One Chromium. Scripts share `kept`; each is the body of an async function of `browser`, `kept` and `given`."""

    def __init__(self, *more: str) -> None:
        built()
        settings = json.dumps({"program": program("chromium"), "more": more})
        command = [program("node"), str(DEVICE / "drive.mjs"), settings]
        self._process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None = None,
        error: BaseException | None = None,
        trace: TracebackType | None = None,
    ) -> None:
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._process.stdin.close()
        try:
            self._process.wait(END_SECONDS)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()
        self._process.stdout.close()

    def run(self, script: str, *given: object) -> Any:
        """Run a script and return its value. Raises BrowserFailed with what it threw."""
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._process.stdin.write(json.dumps({"script": script, "given": given}) + "\n")
        self._process.stdin.flush()
        line = self._process.stdout.readline()
        if not line:
            raise BrowserFailed("the browser's driver ended: see what it wrote above")
        answer = json.loads(line)
        if "failed" in answer:
            raise BrowserFailed(answer["failed"])
        return answer.get("result")


def make_page(folder: Path) -> Path:
    """Make a page without scripts of its own that serves the device and its runtime: /page/device/, /page/runtime/."""
    (folder / "runtime").mkdir(parents=True)
    shutil.copytree(BUILT, folder / "device", ignore=shutil.ignore_patterns("*.d.ts"))
    for name in FILES:
        os.link(RUNTIME / name, folder / "runtime" / name)
    (folder / "index.html").write_text("<!doctype html><html lang=en><title>A page</title><p>A page</p></html>\n")
    return folder

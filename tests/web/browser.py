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

ELSEWHERE = "elsewhere.test"
"""A name for this machine that no browser takes for this machine."""

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
    """One Chromium. Scripts share `kept`; each is the body of an async function as drive.mjs says."""

    def __init__(self, *more: str) -> None:
        """Start Chromium with `more` of its own arguments. Skips or fails where there is none."""
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


class Page:
    """A page of one user, whose browser is a context of its own; `name` is that of `kept[name]` in scripts.

    `kept[name].calls` lists what it asked of the coordinator, with the bodies, `.problems` what went wrong. A page
    that is opened again is another tab of the same user, or the same after `close`. `before` is a script that runs in
    it before its own. With a `profile` it has a Chromium of its own, which keeps everything in that folder.
    """

    def __init__(
        self, browser: Browser, name: str, address: str, *, before: str = "", profile: Path | None = None
    ) -> None:
        self._browser = browser
        self._name = name
        self._address = address
        browser.run(
            """
            const [name, before, profile] = given;
            const context = await (profile === null ? browser.newContext() : launch(profile));
            kept[name] = { context, calls: [], problems: [] };
            if (before !== "") await kept[name].context.addInitScript(before);
            """,
            name,
            before,
            None if profile is None else str(profile),
        )
        self.open()

    def open(self) -> None:
        """Open the page in a new tab."""
        self.run(
            """
            const user = kept[name];
            user.page = await user.context.newPage();
            user.page.on("pageerror", (error) => user.problems.push(String(error)));
            user.page.on("response", async (response) => {
              const request = response.request();
              const path = new URL(request.url()).pathname;
              const call = { method: request.method(), path, offset: request.headers()["upload-offset"] };
              if (!path.startsWith("/v1/")) return;
              user.calls.push({ ...call, status: response.status() });
              user.calls.at(-1).body = request.postDataBuffer()?.toString("base64");
            });
            await user.page.goto(given[0]);
            """,
            self._address,
        )

    def run(self, script: str, *given: object) -> Any:
        """Run a script of the driver, which knows this page's `name` too."""
        text = f"const name = {json.dumps(self._name)};\n{script}"
        return self._browser.run(text, *given)

    def do(self, script: str, **given: object) -> Any:
        """Run the body of an async function in the page; what is given are its variables."""
        names = ", ".join(given)
        whole = f"async ({{ {names} }}) => {{\n{script}\n}}"
        return self.run("return kept[name].page.evaluate(`(${given[0]})(${JSON.stringify(given[1])})`);", whole, given)

    def reload(self) -> None:
        """Load the page anew: whatever ran in it is gone."""
        self.run("await kept[name].page.reload();")

    def close(self) -> None:
        """Close the tab; its user's storage stays."""
        self.run("await kept[name].page.close();")

    def calls(self, ending: str) -> list[dict[str, Any]]:
        """Return the calls whose path ends so, oldest first."""
        made: list[dict[str, Any]] = self.run("return kept[name].calls;")
        return [call for call in made if call["path"].endswith(ending)]


def make_page(folder: Path) -> Path:
    """Make a page without scripts of its own that serves the device and its runtime: /page/device/, /page/runtime/."""
    (folder / "runtime").mkdir(parents=True)
    shutil.copytree(BUILT, folder / "device", ignore=shutil.ignore_patterns("*.d.ts"))
    for name in FILES:
        os.link(RUNTIME / name, folder / "runtime" / name)
    (folder / "index.html").write_text("<!doctype html><html lang=en><title>A page</title><p>A page</p></html>\n")
    return folder

"""The two wheels: Shoal's own stays small, the runtime for browsers comes in another, which the coordinator finds."""

import os
import shutil
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

from shoal.demo.digits.page import BUILT
from shoal.server.web_runtime import NEEDED
from tests.web.browser import RUNTIME, TOP, missing
from tests.wheels import wheel

pytestmark = [pytest.mark.processes, pytest.mark.slow]

STATIC = TOP / "src/shoal/demo/static/digits"
MEGABYTE = 1_000_000


def names(path: Path) -> set[str]:
    with zipfile.ZipFile(path) as file:
        return set(file.namelist())


def test_the_wheel_carries_the_page_and_stays_small(tmp_path):
    if any(not (STATIC / name).exists() for name in BUILT):
        missing("the page of the digits demo is not built: `make browser` builds it")
    built = wheel(TOP, tmp_path)
    there = names(built)
    assert {f"shoal/demo/static/digits/{name}" for name in BUILT} <= there
    assert {"shoal/data/digits.npz", "shoal/demo/digits/run.py"} <= there
    assert not [name for name in there if name.endswith((".wasm", ".ts", ".map"))]
    assert built.stat().st_size < 2 * MEGABYTE


def test_the_runtime_for_browsers_has_a_wheel_that_the_coordinator_finds(tmp_path):
    if not (RUNTIME / NEEDED[0]).exists():
        missing("onnxruntime-web is not here: `make browser` fetches it")
    source = tmp_path / "shoal-web"
    shutil.copytree(TOP / "packages/shoal-web", source, ignore=shutil.ignore_patterns("files"))
    (source / "src/shoal_web/files").mkdir()
    for name in NEEDED:
        os.link(RUNTIME / name, source / "src/shoal_web/files" / name)
    built = wheel(source, tmp_path / "dist")
    assert built.name == "shoal_web-0.1.0-py3-none-any.whl"
    assert {f"shoal_web/files/{name}" for name in NEEDED} <= names(built)
    assert built.stat().st_size < 6 * MEGABYTE
    with zipfile.ZipFile(built) as file:
        file.extractall(tmp_path / "site")
    script = "from shoal.server.web_runtime import WebRuntime, installed; print(*WebRuntime.read(installed()).files)"
    path = os.pathsep.join([str(tmp_path / "site"), *sys.path])
    command = [sys.executable, "-c", script]
    done = subprocess.run(command, env={**os.environ, "PYTHONPATH": path}, check=True, capture_output=True, text=True)
    assert done.stdout.split() == list(NEEDED)

"""The early browser page's parts, for its tests."""

import importlib.util
import os
import shutil
import subprocess
import sys
from pathlib import Path
from types import ModuleType
from typing import NoReturn

import pytest

FOLDER = Path(__file__).parents[2] / "web" / "early"
PAGE = FOLDER / "page"


def make_step() -> ModuleType:
    """Import the script that writes the page's training step."""
    spec = importlib.util.spec_from_file_location("early_make_step", FOLDER / "make_step.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def program(name: str) -> str:
    """Return where a program is. Without it a test fails in CI and is skipped elsewhere."""
    return shutil.which(name) or missing(f"no {name} on this machine: `make browser` installs what can be")


def install() -> None:
    """Install the page's parts, as `make browser` does, and write its training step."""
    program("npm")
    done = subprocess.run(
        ["make", "-s", "browser"], cwd=FOLDER.parents[1], capture_output=True, text=True, timeout=280, check=False
    )
    if done.returncode:
        missing(f"`make browser` failed: {done.stderr[-2000:]}")
    subprocess.run([sys.executable, str(FOLDER / "make_step.py"), str(PAGE / "step.onnx")], check=True, timeout=60)


def missing(reason: str) -> NoReturn:
    if os.environ.get("CI") == "true":
        pytest.fail(reason)
    pytest.skip(reason)

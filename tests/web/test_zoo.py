"""Every model of the zoo trained by its plan with onnxruntime-web (wasm), in Node and in Chromium, as by torch."""

import json
import subprocess
from collections.abc import Mapping
from pathlib import Path

import pytest

from tests.plan import zoo
from tests.plan.exported import STEPS, exported, folder
from tests.web.browser import program

pytestmark = pytest.mark.processes

HERE = Path(__file__).parent
DEVICE = HERE.parents[1] / "web/device"
TOLERANCE = 1e-5
NAMES = list(zoo.ZOO)


@pytest.fixture(scope="module")
def files() -> Path:
    assert (DEVICE / "dist/parts.js").exists(), "make browser"
    for name in NAMES:
        exported(name)
    return folder()


def run(*command: str, given: Mapping[str, object] | None = None) -> dict[str, dict[str, float]]:
    text = None if given is None else json.dumps(given)
    done = subprocess.run(command, input=text, capture_output=True, text=True, timeout=280, check=False)
    assert done.returncode == 0, done.stderr[-4000:]
    return json.loads(done.stdout.splitlines()[-1])


def check(found: dict[str, dict[str, float]]) -> None:
    assert list(found) == NAMES
    for name, one in found.items():
        assert one["runtime"] == "wasm", name
        assert one["steps"] == STEPS
        assert one["moved"] > 0
        assert one["weights"] <= TOLERANCE, (name, one)
        assert one["loss"] <= 1e-4, (name, one)
        assert one["output"] <= 10 * TOLERANCE, (name, one)


@pytest.mark.timeout(300)
def test_the_zoo_in_node(files: Path) -> None:
    runtime = f"{DEVICE}/node_modules/onnxruntime-web/dist/"
    check(run(program("node"), f"{HERE}/zoo.mjs", f"{DEVICE}/dist", runtime, str(files), *NAMES))


@pytest.mark.timeout(300)
def test_the_zoo_in_chromium(files: Path) -> None:
    given = {"device": str(DEVICE), "here": str(HERE), "folder": str(files), "names": NAMES}
    check(run(program("node"), f"{HERE}/zoo_page.mjs", given={**given, "program": program("chromium")}))

"""The built wheel, installed in a clean environment without torch, for every Python that it says it is for."""

import json
import subprocess
import tomllib
import urllib.request
from pathlib import Path

import pytest

from tests.test_packages import names
from tests.wheels import wheel
from tests.without_torch import TOP, interpreter, unset, without_torch

pytestmark = [pytest.mark.processes, pytest.mark.slow, pytest.mark.timeout(600)]

PROJECT = tomllib.loads((TOP / "pyproject.toml").read_text())["project"]
PREFIX = "Programming Language :: Python :: "
VERSIONS = [line.removeprefix(PREFIX) for line in PROJECT["classifiers"] if line.startswith(PREFIX)]
PLAN = TOP / "tests/plan/plans/mlp-sgd.plan"


@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return wheel(TOP, tmp_path_factory.mktemp("built"))


@pytest.fixture(scope="module", params=VERSIONS)
def installed(request: pytest.FixtureRequest) -> "Installed":
    found = interpreter(request.param)
    if found is None:
        pytest.skip(f"this machine has no Python {request.param}")
    return Installed(without_torch(found))


class Installed:
    """A Python without torch in whose environment the wheel is installed."""

    def __init__(self, python: Path) -> None:
        self.python, self.variables = str(python), unset()

    def run(self, *words: str, code: int = 0) -> str:
        done = subprocess.run(
            [self.python, *words], capture_output=True, text=True, check=False, env=self.variables, timeout=120
        )
        assert done.returncode == code, done.stdout + done.stderr
        return done.stdout


def test_the_wheel_holds_every_file_of_the_dashboard(built: Path):
    dashboard = TOP / "src/shoal/server/static/dashboard"
    there = {path.relative_to(TOP / "src").as_posix() for path in dashboard.rglob("*") if path.is_file()}
    assert "shoal/server/static/dashboard/index.html" in there
    assert there <= names(built)
    assert built.stat().st_size < 2_000_000


def test_commands_work(installed: Installed, tmp_path: Path):
    script = installed.run(str(Path(installed.python).with_name("shoal")), "--help")
    assert script.startswith("Usage: shoal ")
    assert "Usage: python -m shoal" in installed.run("-m", "shoal", "--help")
    where = installed.run("-c", "import shoal, importlib.util as u; print(shoal.__file__, u.find_spec('torch'))")
    assert where.startswith(str(Path(installed.python).parents[1]))
    assert where.endswith(" None\n")
    looked = installed.run("-m", "shoal", "doctor", "--json", "--home", str(tmp_path), "--port", "1")
    found = {line["check"]: line for line in map(json.loads, looked.splitlines())}
    assert found["python"]["state"] == "ok"
    assert found["onnxruntime"]["state"] == "ok"
    assert "shoal[torch]" in found["torch"]["mend"]


def test_a_plan_is_loaded(installed: Installed):
    shown = installed.run("-c", f"import shoal; print(type(shoal.plan.load({str(PLAN)!r})).__name__)")
    assert shown.strip() == "Plan"


def test_a_coordinator_serves_its_dashboard(installed: Installed, tmp_path: Path):
    command = [installed.python, "-m", "shoal", "server", "--port", "0", "--json", "--home", str(tmp_path / "home")]
    with (tmp_path / "log").open("wb") as log:
        server = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=log, env=installed.variables)
    assert server.stdout is not None
    try:
        url = json.loads(server.stdout.readline())["url"]
        with urllib.request.urlopen(url, timeout=60) as page:
            assert page.headers["content-type"].startswith("text/html")
            assert b"<title>Shoal" in page.read()
    finally:
        server.terminate()
        server.wait(60)
        server.stdout.close()


def test_what_needs_torch_says_how_to_get_it(installed: Installed, tmp_path: Path):
    (tmp_path / "task.py").write_text("import shoal\ntask = shoal.Task\n")
    command = [installed.python, "-m", "shoal", "simulate", "task.py:task", "--clients", "clients", "--rounds", "1"]
    done = subprocess.run(
        command, cwd=tmp_path, capture_output=True, text=True, check=False, env=installed.variables, timeout=120
    )
    assert done.returncode == 1
    assert "shoal[torch]" in done.stderr

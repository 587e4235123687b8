"""What deploy/ starts is there: every command and option exists, every file parses, versions agree."""

import configparser
import json
import re
import shlex
import shutil
import subprocess
import tomllib
from pathlib import Path

import pytest
import typer
import yaml

from shoal.cli.main import app

TOP = Path(__file__).parents[2]
DEPLOY = TOP / "deploy"
UNITS = sorted(DEPLOY.glob("*.service"))
DOCKERFILE = (DEPLOY / "Dockerfile").read_text()


def parses(words: list[str]) -> dict[str, object]:
    """Do what the command line does up to the call of the function; return the options by name."""
    command, made = typer.main.get_command(app), None
    while True:
        made = command.make_context(words[0] if made else "shoal", words[1:] if made else words, parent=made)
        words = [*made._protected_args, *made.args]
        if not words:
            return made.params
        command = command.commands[words[0]]


def instruction(name: str) -> list[str]:
    lines = DOCKERFILE.replace("\\\n", " ").splitlines()
    return [line.removeprefix(name).strip() for line in lines if line.startswith(f"{name} ")]


def unit(path: Path) -> configparser.ConfigParser:
    class Repeated(dict):
        def __setitem__(self, key, value):
            if isinstance(value, list) and key in self:
                value = self[key] + value
            super().__setitem__(key, value)

    parser = configparser.ConfigParser(dict_type=Repeated, strict=False, interpolation=None)
    parser.optionxform = str
    parser.read(path)
    return parser


def started(path: Path) -> list[str]:
    """Return the arguments of the program that a unit starts, with what systemd would put into them."""
    line = unit(path)["Service"]["ExecStart"]
    filled = re.sub(r"\$\{\w+\}|%[iHS]", "x", line)
    program, *words = shlex.split(filled)
    assert program == "/opt/shoal/bin/shoal"
    return words


@pytest.mark.parametrize("path", UNITS, ids=lambda path: path.name)
def test_a_unit_starts_a_command_that_exists(path, monkeypatch):
    monkeypatch.setenv("SHOAL_URL", "http://127.0.0.1:8080")
    assert parses(started(path))["home"]


def test_an_option_that_does_not_exist_is_noticed():
    with pytest.raises(Exception, match="No such option"):
        parses(["server", "--hoem", "/x"])


HARDENED = {
    "DynamicUser": "yes",
    "NoNewPrivileges": "yes",
    "ProtectSystem": "strict",
    "ProtectHome": "yes",
    "PrivateTmp": "yes",
    "PrivateDevices": "yes",
    "CapabilityBoundingSet": "",
    "Restart": "always",
    "UMask": "0077",
    "StateDirectoryMode": "0700",
}


@pytest.mark.parametrize("path", UNITS, ids=lambda path: path.name)
def test_a_unit_is_hardened_and_comes_back(path):
    assert {name: unit(path)["Service"].get(name) for name in HARDENED} == HARDENED


@pytest.mark.processes
@pytest.mark.parametrize("path", UNITS, ids=lambda path: path.name)
def test_systemd_accepts_a_unit(path, tmp_path):
    """systemd reads every line; the program need not be installed where the tests run."""
    assert shutil.which("systemd-analyze"), "apt-get install systemd"
    program = tmp_path / "shoal"
    program.write_text("#!/bin/sh\n")
    program.chmod(0o755)
    copy = tmp_path / path.name
    copy.write_text(path.read_text().replace("/opt/shoal/bin/shoal", str(program)))
    done = subprocess.run(["systemd-analyze", "verify", "--man=no", str(copy)], capture_output=True, text=True)
    complaints = [line for line in done.stderr.splitlines() if path.name.split(".")[0].split("@")[0] in line]
    assert (done.returncode, complaints) == (0, [])


def test_the_image_starts_a_command_that_exists():
    (entry,), (command,) = instruction("ENTRYPOINT"), instruction("CMD")
    options = parses([*json.loads(entry)[1:], *json.loads(command)])
    assert (options["host"], options["port"]) == ("0.0.0.0", 8080)
    assert instruction("EXPOSE") == ["8080"]


def test_the_image_is_small_and_runs_as_nobody_in_particular():
    bases = instruction("FROM")
    assert bases == ["python:3.11-slim AS build", "python:3.11-slim"]
    final = DOCKERFILE.split("FROM python:3.11-slim\n")[1]
    assert "\nUSER shoal\n" in final
    (volume,) = instruction("VOLUME")
    assert f"SHOAL_HOME={volume}/" in DOCKERFILE
    assert "[torch]" not in DOCKERFILE
    assert "-c constraints.txt" in DOCKERFILE
    project = tomllib.loads((TOP / "pyproject.toml").read_text())["project"]
    assert not [name for name in project["dependencies"] if name.startswith("torch")]


def test_what_the_image_copies_is_there_and_is_let_through():
    ignored = (DEPLOY / "Dockerfile.dockerignore").read_text().splitlines()
    for line in instruction("COPY"):
        for source in () if line.startswith("--from") else line.split()[:-1]:
            assert (TOP / source).exists()
            assert f"!{source}" in ignored


def health_check() -> list[str]:
    (line,) = [line for line in DOCKERFILE.replace("\\\n", " ").splitlines() if line.startswith("HEALTHCHECK")]
    program, *words = json.loads(line[line.index("[") :])
    assert program == "python"
    return words


@pytest.mark.processes
def test_the_health_check_tells_a_coordinator_from_none(tmp_path):
    import sys

    from tests.server.test_running_home import server

    def check(url):
        words = [word.replace("http://127.0.0.1:8080", url) for word in health_check()]
        return subprocess.run([sys.executable, *words], capture_output=True, timeout=60).returncode

    with server(tmp_path / "home") as running:
        assert check(running.url) == 0
        url = running.url
    assert check(url) != 0


def test_compose_runs_the_same_command_with_options_that_exist():
    composed = yaml.safe_load((DEPLOY / "compose.yaml").read_text())
    service = composed["services"]["coordinator"]
    options = parses(service["command"])
    assert (options["quota"], str(options["token_file"])) == (50 * 10**9, "/var/lib/shoal/tokens.json")
    assert (DEPLOY / service["build"]["context"] / service["build"]["dockerfile"]).samefile(DEPLOY / "Dockerfile")
    assert service["volumes"] == [f"{name}:/var/lib/shoal" for name in composed["volumes"]]


def test_the_environment_agrees_with_the_project():
    environment = yaml.safe_load((DEPLOY / "environment.yml").read_text())
    python, _, installed = environment["dependencies"]
    project = tomllib.loads((TOP / "pyproject.toml").read_text())["project"]
    assert project["requires-python"] == f">={python.removeprefix('python=')}"
    constraints, editable = installed["pip"]
    assert (DEPLOY / constraints.removeprefix("-c ")).samefile(TOP / "constraints.txt")
    assert editable == "-e ..[torch]"
    pinned = dict(re.findall(r"^(torch)==(\S+)$", (TOP / "constraints.txt").read_text(), re.MULTILINE))
    low, high = re.fullmatch(r"torch>=([\d.]+),<([\d.]+)", project["optional-dependencies"]["torch"][0]).groups()
    version = [int(part) for part in pinned["torch"].split(".")]
    assert [int(p) for p in low.split(".")] <= version < [int(p) for p in high.split(".")]


@pytest.mark.parametrize("name", ["alembic", "prometheus_client", "structlog", "SQLAlchemy", "PyYAML"])
def test_what_housekeeping_needs_is_pinned(name):
    assert re.search(rf"^{name}==", (TOP / "constraints.txt").read_text(), re.MULTILINE)


@pytest.mark.slow
@pytest.mark.parametrize("page", ["deploy.md", "operations.md"])
def test_every_command_in_the_pages_exists(page, monkeypatch):
    monkeypatch.setenv("SHOAL_URL", "http://127.0.0.1:8080")
    monkeypatch.setenv("SHOAL_TOKEN", "x")
    text = (TOP / "docs" / page).read_text()
    blocks = re.findall(r"^```sh\n(.*?)^```", text, re.MULTILINE | re.DOTALL)
    commands = [shlex.split(line, comments=True) for block in blocks for line in block.splitlines()]
    ours = [words[1:] for words in commands if words and words[0].rpartition("/")[2] == "shoal"]
    assert ours or page == "deploy.md"
    for words in ours:
        parses(words)
    for mentioned in re.findall(r"`(--[a-z-]+)`", text):
        assert mentioned in every_option(), mentioned


def every_option() -> set[str]:
    group = typer.main.get_command(app)
    pending, found = [group], set()
    while pending:
        command = pending.pop()
        pending += getattr(command, "commands", {}).values()
        found |= {option for parameter in command.params for option in (*parameter.opts, *parameter.secondary_opts)}
    return found

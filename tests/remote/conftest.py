import json
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

import shoal


@dataclass(frozen=True, slots=True)
class WorkerProcess:
    """A real `shoal worker`."""

    process: subprocess.Popen[bytes]
    url: str
    tokens: dict[str, str]
    fingerprint: str | None

    @property
    def token(self) -> str:
        return self.tokens["researcher"]

    def connect(self, person: str = "researcher", **options):
        return shoal.connect(self.url, token=self.tokens[person], **options)

    def end(self) -> None:
        self.process.terminate()
        self.process.wait(30)
        self.process.stdout.close()


def start(*options: object) -> WorkerProcess:
    if "--home" not in options:
        options = (*options, "--home", tempfile.mkdtemp())
    command = [sys.executable, "-m", "shoal", "worker", "--name", "bob", "--port", "0", "--json"]
    process = subprocess.Popen([*command, *map(str, options)], stdout=subprocess.PIPE, stderr=subprocess.DEVNULL)
    line = process.stdout.readline()
    assert line, process.wait(30)
    told = json.loads(line)
    return WorkerProcess(process, told["url"], told["tokens"], told["fingerprint"])


@pytest.fixture(scope="session")
def worker_process(tmp_path_factory: pytest.TempPathFactory) -> Iterator[WorkerProcess]:
    file: Path = tmp_path_factory.mktemp("data") / "houses.csv"
    file.write_text("rooms,age,price\n6,65,24\n6.4,78,21\n7.1,61,34\n6.9,45,33\n")
    file.with_suffix(".toml").write_text(
        'description = "Houses"\ntags = ["#boston"]\ntarget = "price"\n[columns.age]\nlow = 0\nhigh = 100\n'
    )
    policy = file.with_name("policy.toml")
    policy.write_text('[[grant]]\nperson = "researcher"\ndata = "houses"\nmock = true\n')
    options = ("--data", file, "--policy", policy, "--home", file.with_name("home"))
    started = start(*options, "--person", "researcher", "--person", "alice", "--lease", "0.2")
    yield started
    started.end()

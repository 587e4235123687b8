"""`shoal server backup`, `restore` and `migrate` beside a coordinator that runs, in processes of their own."""

import json
import signal
import sqlite3
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import closing, contextmanager
from dataclasses import dataclass
from pathlib import Path

import httpx
import msgspec
import pytest

from shoal.core.receipt import Receipt
from shoal.core.tree import encode
from shoal.store.tables import REVISION
from shoal.wire.http import Connection
from shoal.wire.messages import CheckInReply, CheckInRequest, EnrolReply, EnrolRequest, VersionsReply
from shoal.wire.signing import Ed25519Key
from tests.server.conftest import START, delta, report_body, spec
from tests.store.test_migrations import FIRST

pytestmark = pytest.mark.processes

ROUNDS = 400


def shoal(*arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run([sys.executable, "-m", "shoal", *arguments], capture_output=True, text=True, timeout=120)


@dataclass
class Running:
    """A coordinator in a process of its own."""

    process: subprocess.Popen[str]
    url: str
    admin: str
    enrolment: str

    def client(self, token: str) -> httpx.Client:
        return httpx.Client(base_url=self.url, headers={"Authorization": f"Bearer {token}"}, timeout=60)

    def versions(self, task: str, token: str = "", after: int = -1, wait: float = 0.0) -> VersionsReply:
        with self.client(token or self.admin) as client:
            answer = client.get(f"/v1/tasks/{task}/versions?after={after}&wait={wait}")
        return msgspec.json.decode(answer.content, type=VersionsReply)


@contextmanager
def server(home: Path, *options: str) -> Iterator[Running]:
    command = [sys.executable, "-m", "shoal", "server", "--home", str(home), "--port", "0", "--json", *options]
    log = home.with_name(f"{home.name}.log")
    with (
        log.open("w") as errors,
        subprocess.Popen(command, stdout=subprocess.PIPE, stderr=errors, text=True) as process,
    ):
        try:
            said = json.loads(process.stdout.readline())
            yield Running(process, said["url"], said["admin_token"] or "", said["enrolment_token"] or "")
            process.send_signal(signal.SIGTERM)
        except BaseException:
            process.kill()
            raise
        finally:
            process.communicate(timeout=60)


def publish(running: Running, **changes: object) -> str:
    with running.client(running.admin) as client:
        initial = client.post("/v1/blobs", content=encode(START)).json()["digest"]
        body = msgspec.json.encode(spec(goal=1, initial=initial, **changes))
        return client.post("/v1/tasks", content=body).json()["id"]


BOB = Ed25519Key(Ed25519Key.generate())


def enrol(running: Running) -> None:
    with Connection(running.url, key=BOB) as line:
        line.call("POST", "/v1/devices", EnrolRequest("bob", BOB.public), EnrolReply, token=running.enrolment)


class Bob(threading.Thread):
    """A device that reports, round after round, until it is told to stop or the task is over."""

    def __init__(self, running: Running) -> None:
        super().__init__()
        self._running = running
        self.stopped = threading.Event()
        self.rounds = 0

    def run(self) -> None:
        with Connection(self._running.url, key=BOB) as line:
            while not self.stopped.is_set() and self.step(line):
                self.rounds += 1

    def step(self, line: Connection) -> bool:
        asked = CheckInRequest(training=("plain",), wait=2.0)
        given = line.call("POST", "/v1/checkin", asked, CheckInReply, wait=2.0).assignment
        if given is None:
            return False
        line.upload(f"/v1/assignments/{given.id}/report", report_body(delta(1.0 / given.round)), Receipt)
        return True


def test_a_backup_made_during_rounds_goes_on_elsewhere_with_the_same_versions(tmp_path):
    home, copy, new = tmp_path / "home", tmp_path / "copy", tmp_path / "new"
    with server(home) as running:
        task = publish(running, rounds=ROUNDS)
        enrol(running)
        bob = Bob(running)
        bob.start()
        running.versions(task, after=2, wait=20.0)
        before = bob.rounds
        made = shoal("server", "backup", str(copy), "--home", str(home), "--json")
        assert made.returncode == 0, made.stderr
        during = bob.rounds - before
        reached = running.versions(task).status.latest.number
        running.versions(task, after=reached + 1, wait=20.0)
        bob.stopped.set()
        bob.join()
        admin = running.admin
        original = [version.digest for version in running.versions(task).versions]
    assert during > 0, "no round ended while the backup was made"
    assert json.loads(made.stdout)["tasks"] == 1

    refused = shoal("server", "restore", str(copy), "--home", str(home))
    assert (refused.returncode, "is not empty" in refused.stderr) == (1, True)
    restored = shoal("server", "restore", str(copy), "--home", str(new), "--json")
    assert restored.returncode == 0, restored.stderr

    with server(new) as running:
        assert running.admin == ""  # its tokens are those of the first home
        kept = [version.digest for version in running.versions(task, admin).versions]
        assert 2 < len(kept) < len(original)
        assert kept == original[: len(kept)]
        with running.client(admin) as client:
            assert all(client.get(f"/v1/blobs/{digest}").status_code == 200 for digest in kept)
        with Connection(running.url, key=BOB) as line:
            again = Bob(running)
            while running.versions(task, admin).status.latest.number + 1 < len(original):
                assert again.step(line)
        assert [v.digest for v in running.versions(task, admin).versions][: len(original)] == original


def test_an_old_home_is_served_only_after_migrating(tmp_path):
    home = tmp_path / "home"
    home.mkdir()
    with closing(sqlite3.connect(home / "shoal.db")) as connection:
        connection.executescript(FIRST.read_text())
    refused = shoal("server", "--home", str(home), "--port", "0")
    assert refused.returncode == 1
    assert "older_database" in refused.stderr
    command = refused.stderr.split("then run: shoal ")[1].splitlines()[0]
    done = shoal(*command.split(), "--json")
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout) == {"home": str(home), "before": "0001", "after": REVISION}
    with server(home) as running:
        with httpx.Client(base_url=running.url) as client:
            assert client.get("/healthz").status_code == 200
        busy = shoal("server", "migrate", "--home", str(home))
        assert (busy.returncode, "in use by a coordinator" in busy.stderr) == (1, True)
        assert running.process.poll() is None
    assert f"revision {REVISION} already" in shoal("server", "migrate", "--home", str(home)).stdout


def test_tokens_go_to_a_file_and_metrics_and_logs_to_their_places(tmp_path):
    tokens = tmp_path / "tokens.json"
    with server(tmp_path / "home", "--token-file", str(tokens), "--quota", "10GB", "--keep-versions", "3") as running:
        assert (running.admin, running.enrolment) == ("", "")
        assert tokens.stat().st_mode & 0o777 == 0o600
        admin = json.loads(tokens.read_bytes())["admin_token"]
        with running.client(admin) as client:
            assert client.get("/v1/tasks").json() == []
        text = httpx.get(f"{running.url}/metrics").text
        assert "shoal_disk_quota_bytes 1e+010" in text or "shoal_disk_quota_bytes 1e+10" in text
    log = (tmp_path / "home.log").read_text()
    assert json.loads(log.splitlines()[0])["event"] == "serving"
    assert admin not in log


def test_a_person_reads_the_address_on_stdout_and_the_log_on_stderr(tmp_path):
    command = [sys.executable, "-m", "shoal", "server", "--home", str(tmp_path), "--port", "0"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as process:
        try:
            assert process.stdout.readline().startswith("coordinator: http://127.0.0.1:")
            assert json.loads(process.stderr.readline())["event"] == "serving"
        finally:
            process.terminate()
            output, _ = process.communicate(timeout=60)
    assert "serving" not in output

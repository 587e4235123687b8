"""Tokens, approval, revocation and TLS as people type them, against a real coordinator."""

import json
import subprocess
import sys
from collections.abc import Iterator

import pytest

from shoal.core.errors import Forbidden, Pending, Unauthorised
from shoal.researcher.coordinator import Coordinator
from shoal.wire.http import Connection
from shoal.wire.messages import EnrolReply, EnrolRequest, TokenRequest
from shoal.wire.signing import Ed25519Key
from tests.certificates import certificate

pytestmark = pytest.mark.processes


@pytest.fixture(scope="module")
def coordinator(tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[str, str]]:
    folder = tmp_path_factory.mktemp("tls")
    cert, key = certificate(folder)
    command = [sys.executable, "-m", "shoal", "server", "--home", str(folder / "home"), "--port", "0", "--json"]
    tls = ["--cert", str(cert), "--key", str(key), "--approval"]
    with (folder / "log").open("wb") as log:
        process = subprocess.Popen([*command, *tls], stdout=subprocess.PIPE, stderr=log)
    assert process.stdout is not None
    try:
        yield {**json.loads(process.stdout.readline()), "ca": str(cert)}
    finally:
        process.terminate()
        process.wait(30)
        process.stdout.close()


def typed(coordinator: dict[str, str], *words: str) -> list[dict[str, object]]:
    given = ["--url", coordinator["url"], "--token", coordinator["admin_token"], "--ca", coordinator["ca"], "--json"]
    command = [sys.executable, "-m", "shoal", *words, *given]
    done = subprocess.run(command, capture_output=True, text=True, check=True, timeout=60)
    return [json.loads(line) for line in done.stdout.splitlines()]


def enrol(coordinator: dict[str, str], name: str, key: Ed25519Key, token: str | None = None) -> EnrolReply:
    line = Connection(coordinator["url"], key=key, ca=coordinator["ca"])
    with line:
        return line.call("POST", "/v1/devices", EnrolRequest(name, key.public), EnrolReply, token=token)


def test_the_line_is_locked_and_a_device_waits_until_it_is_approved(coordinator: dict[str, str]):
    assert coordinator["url"].startswith("https://")
    key = Ed25519Key(Ed25519Key.generate())
    with pytest.raises(Pending, match="waits for approval"):
        enrol(coordinator, "bob", key)
    (waiting,) = typed(coordinator, "devices")
    assert (waiting["name"], waiting["state"]) == ("bob", "pending")
    (approved,) = typed(coordinator, "devices", "approve", "bob", "--scope", "digits", "--key", str(waiting["id"]))
    assert (approved["state"], approved["scope"]) == ("enrolled", ["digits"])
    assert enrol(coordinator, "bob", key).scope == ("digits",)
    (revoked,) = typed(coordinator, "devices", "revoke", "bob")
    assert revoked["state"] == "revoked"
    with pytest.raises(Unauthorised, match="was revoked"):
        enrol(coordinator, "bob", key)


def test_a_token_is_made_listed_used_and_taken_back(coordinator: dict[str, str]):
    (made,) = typed(coordinator, "tokens", "create", "--role", "enrolment", "--uses", "2", "--expires", "7d")
    token = str(made["token"])
    enrol(coordinator, "ann", Ed25519Key(Ed25519Key.generate()), token)
    listed = {each["id"]: each for each in typed(coordinator, "tokens")}
    assert (listed[made["id"]]["used"], listed[made["id"]]["uses"], listed[made["id"]]["token"]) == (1, 2, None)
    typed(coordinator, "tokens", "revoke", str(made["id"]))
    with pytest.raises(Unauthorised):
        enrol(coordinator, "carl", Ed25519Key(Ed25519Key.generate()), token)


def test_a_viewer_reads_and_changes_nothing(coordinator: dict[str, str]):
    (made,) = typed(coordinator, "tokens", "create", "--role", "viewer")
    with Coordinator.connect(coordinator["url"], token=str(made["token"]), ca=coordinator["ca"]) as viewer:
        assert viewer.tasks() == []
        with pytest.raises(Forbidden, match="may not call POST /v1/tokens"):
            viewer.access.create(TokenRequest("admin"))

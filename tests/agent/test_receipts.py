"""Receipts are signed by the key that the device pinned, and a stranger's receipt ends nothing."""

import base64
import json
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from threading import Event

import httpx
import msgspec
import numpy as np
import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from hypothesis import given, settings
from hypothesis import strategies as st
from typer.testing import CliRunner

from shoal.agent.agent import Agent
from shoal.agent.data import ArrayData
from shoal.agent.home import AgentHome, pinned_key
from shoal.agent.home import receipts as receipts_in
from shoal.agent.work import Result, trained
from shoal.cli.main import app
from shoal.core.errors import WrongReceipt
from shoal.core.receipt import Receipt
from shoal.core.types import Assignment, Update
from shoal.server.key import ReceiptKey
from shoal.store.memory import MemoryStore
from shoal.wire import receipts
from shoal.wire.messages import KeyReply
from tests.server.conftest import Served, delta, report_body, served, spec

__all__ = ["served"]


class Labour:
    """Trains nothing: every update is the same."""

    ready = True
    tasks = ("plain",)

    def load(self) -> None:
        """Do nothing."""

    def work(self, assignment: Assignment) -> Result:
        return trained(assignment, Update(assignment.id, delta(1.0), 1 << 16), 1)


class Forging(httpx.BaseTransport):
    """Answers reports itself, with a receipt that it signed with its own key."""

    def __init__(self, inner: httpx.BaseTransport) -> None:
        self._inner = inner
        self.forges = True

    def handle_request(self, request: httpx.Request) -> httpx.Response:
        if not (self.forges and request.url.path.endswith("/report")):
            return self._inner.handle_request(request)
        made = Receipt(request.url.path.split("/")[3], "0" * 64, 1.0)
        forged = msgspec.json.encode(receipts.sign(Ed25519PrivateKey.generate(), made))
        return httpx.Response(200, stream=httpx.ByteStream(forged))


@pytest.fixture
def line(served: Served) -> Forging:
    return Forging(served.client._transport)


@pytest.fixture
def home(tmp_path: Path) -> Iterator[AgentHome]:
    with AgentHome(tmp_path / "bob") as made:
        yield made


@pytest.fixture
def agent(served: Served, line: Forging, home: AgentHome) -> Agent:
    served.publish(spec(rounds=1, goal=1))
    data = ArrayData({"x": np.zeros((1, 1), np.float32)})
    return Agent(
        "http://shoal",
        "bob",
        home,
        data,
        token=served.enrolment,
        say=lambda _: None,
        transport=line,
        wait=0.0,
        labour=lambda _: Labour(),
    )


def listed(home: AgentHome, *more: str) -> tuple[int, list[dict[str, object]]]:
    answer = CliRunner().invoke(app, ["agent", "receipts", "--home", str(home.path), "--json", *more])
    return answer.exit_code, [json.loads(line) for line in answer.stdout.splitlines()]


def test_a_forged_receipt_is_not_taken_and_the_true_one_is_kept_and_verified(
    served: Served, line: Forging, home: AgentHome, agent: Agent
):
    agent.join()
    assert pinned_key(home.path) == served.coordinator.key.public
    with pytest.raises(WrongReceipt, match="was not signed with the coordinator's key"):
        agent.turn(Event())
    assert (len(home.reports()), agent.receipts) == (1, 0)
    line.forges = False
    agent.turn(Event())
    assert (home.reports(), agent.receipts) == ([], 1)
    [kept] = receipts_in(home.path)
    receipts.check(served.coordinator.key.public, kept)
    code, [shown, total] = listed(home, "--verify")
    assert (code, shown["digest"], shown["verdict"], total) == (0, kept.digest, "ok", {"receipts": 1, "verified": 1})


def test_a_line_of_the_log_that_was_changed_is_found(line: Forging, home: AgentHome, agent: Agent):
    line.forges = False
    agent.turn(Event())
    log = home.path / "receipts.jsonl"
    assert listed(home)[0] == 0
    before = log.read_text()
    log.write_text(before.replace('"accepted_at":', '"accepted_at":1'))
    code, [shown, total] = listed(home, "--verify")
    assert (code, shown["verdict"]) == (1, "not signed with the pinned key")
    assert total == {"receipts": 1, "verified": 0}


def test_a_repeat_gets_the_same_signature_and_a_conflict_a_signed_receipt(served: Served):
    served.publish(spec(rounds=1, goal=2))
    assignment = served.check_in("bob").assignment
    assert assignment is not None
    first = served.report("bob", assignment.id, report_body(delta(1.0)))
    assert served.report("bob", assignment.id, report_body(delta(1.0))).content == first.content
    other = served.report("bob", assignment.id, report_body(delta(2.0)))
    assert other.status_code == 409
    kept = msgspec.convert(other.json()["receipt"], Receipt)
    assert kept == msgspec.json.decode(first.content, type=Receipt)
    key = msgspec.json.decode(served.client.get("/v1/key").content, type=KeyReply).public_key
    receipts.check(key, kept)


@settings(max_examples=25)
@given(st.text("0123456789abcdef", min_size=1), st.floats(0, 1e10), st.sampled_from(["assignment", "digest", "time"]))
def test_nothing_of_a_signed_receipt_may_change(text: str, at: float, part: str):
    key = Ed25519PrivateKey.generate()
    public = base64.b64encode(key.public_key().public_bytes_raw()).decode()
    good = receipts.sign(key, Receipt(text, text, at))
    receipts.check(public, good)
    changed = {
        "assignment": replace(good, assignment=text + "0"),
        "digest": replace(good, digest=text + "0"),
        "time": replace(good, accepted_at=at + 1),
    }[part]
    with pytest.raises(WrongReceipt):
        receipts.check(public, changed)


def test_the_key_is_that_of_the_store():
    store = MemoryStore()
    assert ReceiptKey.load(store).public == ReceiptKey.load(store).public != ReceiptKey.load(MemoryStore()).public

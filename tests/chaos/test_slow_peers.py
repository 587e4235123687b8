"""A peer that trickles its body holds nobody up, and is cut off."""

import hashlib
import threading
from collections.abc import Iterator

import pytest

from shoal.wire.digests import CONTENT_DIGEST, digest_field
from tests.server.conftest import Served, delta, report_body, served, spec

__all__ = ["served"]


class Trickle:
    """A body whose rest comes only when it is let go."""

    def __init__(self, first: bytes) -> None:
        self.begun = threading.Event()
        self.let_go = threading.Event()
        self._first = first

    def __iter__(self) -> Iterator[bytes]:
        yield self._first
        self.begun.set()
        self.let_go.wait(20)


def test_it_gets_408_its_connection_is_closed_and_others_are_served_meanwhile(
    served: Served, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr("shoal.server.calls.PATIENCE_SECONDS", 0.3)
    served.publish(spec(rounds=1, goal=2))
    slow, body = served.check_in("alice").assignment, report_body(delta(1.0))
    assert slow is not None
    trickle = Trickle(body[:-1])
    answers: list[tuple[int, str, str, str]] = []

    def send() -> None:
        path = f"/v1/assignments/{slow.id}/report"
        digest = {CONTENT_DIGEST: digest_field(hashlib.sha256(body).digest())}
        answer = served.client.post(path, content=iter(trickle), headers={**served.device("alice"), **digest})
        error = answer.json()
        answers.append((answer.status_code, error["code"], error["problem"], answer.headers["connection"]))

    sending = threading.Thread(target=send)
    sending.start()
    assert trickle.begun.wait(20)
    quick = served.check_in("bob").assignment
    assert quick is not None
    assert served.report("bob", quick.id, body).status_code == 200
    sending.join(20)
    trickle.let_go.set()
    [(status, code, problem, connection)] = answers
    assert (status, code, connection) == (408, "too_slow", "close")
    assert problem.startswith(f"{len(body) - 1} bytes of a body had arrived")
    assert served.report("alice", slow.id, body).status_code == 200

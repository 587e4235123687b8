from pathlib import Path

import httpx
import numpy as np
import pytest
import torch
from safetensors.numpy import load_file

from shoal.core.errors import Abandoned, Conflict, CorruptStore, NotFound, Unreachable
from shoal.core.tree import digest
from shoal.researcher.coordinator import Coordinator
from shoal.researcher.run import Run
from shoal.testing.clock import ManualClock
from shoal.wire.http import Connection
from tests.agent.federation import URL, Faulty, Federation, line_task


@pytest.fixture
def run(federation: Federation) -> Run:
    """A run of two rounds that is over."""
    federation.start("bob")
    made = federation.researcher.publish(line_task(), rounds=2, goal=1, plan=False)
    assert [version.number for version in made.follow()] == [1, 2]
    return made


def test_versions_are_what_their_digests_say(run: Run, federation: Federation):
    versions = federation.researcher.versions("line")
    assert [version.number for version in versions] == [0, 1, 2]
    for version in versions:
        travelling = {name: array for name, array in run.params(version).items() if name != "scale"}
        assert digest(travelling) == version.digest
    np.testing.assert_array_equal(run.params()["layers.0.weight"], run.params(2)["layers.0.weight"])
    assert run.version() == versions[2]


def test_a_model_predicts_with_the_frozen_arrays_that_were_published(run: Run):
    other = line_task()
    other.model.scale.fill_(9.0)
    model = run.model(other)
    assert model.scale.item() == 2.0
    assert model(torch.zeros(5, 3)).shape == (5,)


def test_a_saved_model_is_a_safetensors_file_of_every_array(run: Run, tmp_path: Path):
    path = tmp_path / "line.safetensors"
    saved = run.save(path)
    loaded = load_file(path)
    assert sorted(loaded) == sorted(run.spec.arrays)
    assert digest(loaded) == saved
    assert [file.name for file in tmp_path.iterdir() if file.is_file()] == [path.name]


def test_a_version_that_is_not_there_is_named(run: Run):
    with pytest.raises(NotFound, match=r"line-1 has no version 3: the newest is 2"):
        run.params(3)


def test_a_run_can_be_found_again(run: Run, federation: Federation):
    again = federation.researcher.run("line")
    assert (again.id, again.spec) == (run.id, run.spec)
    assert [version.number for version in again.follow(after=1)] == [2]


def test_bytes_that_are_not_what_their_digest_says_are_refused(run: Run, federation: Federation):
    with pytest.raises(CorruptStore, match="arrived as"):
        Run(Tampering(federation), run.id, run.spec).params()


class Tampering(Connection):
    def __init__(self, federation: Federation) -> None:
        super().__init__(URL, federation.admin, transport=federation.transport)

    def download(self, digest: str, most: int) -> bytes:
        return super().download(digest, most)[:-1] + b"!"


def test_a_cancelled_task_ends_with_its_reason(federation: Federation):
    run = federation.researcher.publish(line_task(), rounds=2, goal=1, plan=False)
    status = federation.researcher.cancel("line", "not needed")
    assert status.phase == "cancelled"
    with pytest.raises(Abandoned, match="line-1 cancelled: not needed"):
        list(run.follow())


def test_a_publish_whose_reply_was_lost_may_be_repeated(federation: Federation):
    lost = Faulty(federation.transport, "/v1/tasks", [httpx.ReadError("lost")], after=True)
    with Coordinator.connect(URL, token=federation.admin, transport=lost) as researcher:
        with pytest.raises(Unreachable):
            researcher.publish(line_task(), rounds=2, goal=1, plan=False)
        assert researcher.publish(line_task(), rounds=2, goal=1, plan=False).id == "line-1"
    assert [status.id for status in federation.researcher.tasks()] == ["line-1"]


def test_a_name_that_still_runs_is_not_taken_twice(federation: Federation):
    federation.researcher.publish(line_task(), rounds=2, goal=1, plan=False)
    with pytest.raises(Conflict, match="still runs"):
        federation.researcher.publish(line_task(), rounds=3, goal=1, plan=False)
    assert [status.id for status in federation.researcher.tasks()] == ["line-1"]


def test_following_survives_a_coordinator_that_is_away_for_a_while(federation: Federation):
    run = federation.researcher.publish(line_task(), rounds=1, goal=1, plan=False)
    federation.start("bob")
    away = Faulty(federation.transport, "/versions", [httpx.ConnectError("no") for _ in range(5)], after=False)
    delays: list[float] = []
    patient = Run(Connection(URL, federation.admin, transport=away), run.id, run.spec, sleep=delays.append)
    assert [version.number for version in patient.follow()] == [1]
    assert len(delays) == 5
    assert delays[4] > delays[0]


def test_patience_ends(federation: Federation):
    run = federation.researcher.publish(line_task(), rounds=1, goal=1, plan=False)
    federation.transport.close()
    clock = ManualClock()
    connection = Connection(URL, federation.admin, transport=federation.transport)
    tired = Run(connection, run.id, run.spec, clock=clock, sleep=clock.advance)
    began = clock()
    with pytest.raises(Unreachable):
        list(tired.follow(patience=60.0))
    assert 60.0 < clock() - began < 100.0


def test_no_version_within_the_time_given(federation: Federation):
    run = federation.researcher.publish(line_task(), rounds=1, goal=2, plan=False)
    with pytest.raises(Abandoned, match="line-1 has 0 of 2 reports for version 1"):
        list(run.follow(within=0.05))


def test_closing_a_line_leaves_the_transport_to_whoever_made_it(federation: Federation):
    with Coordinator.connect(URL, token=federation.admin, transport=federation.transport) as first:
        assert first.tasks() == []
    assert federation.researcher.tasks() == []

"""What a run depends on is written down, and the same of it gives the same digests."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from shoal.agent.policy import Policy
from shoal.core.errors import DataError, NotFound, TaskError
from shoal.core.manifest import Manifest
from shoal.store.memory import MemoryBlobs, MemoryStore
from tests.agent.federation import Federation, line_data, line_task


def trained(folder: Path, seed: int, rows: int = 12) -> tuple[Manifest, list[str]]:
    """Train a task at a coordinator of its own; return its manifest and the digests of its versions."""
    federation = Federation(folder, MemoryStore(), MemoryBlobs())
    try:
        run = federation.researcher.publish(line_task(), rounds=2, goal=2, seed=seed, plan=False)
        for name in ("bob", "alice"):
            federation.start(name, line_data(name, rows), policy=Policy(data_digest=True))
        digests = [version.digest for version in run.follow(within=60.0)]
        return federation.researcher.manifest("line"), digests
    finally:
        federation.close()


@pytest.mark.slow
def test_the_same_manifest_gives_the_same_digests(tmp_path: Path):
    first, versions = trained(tmp_path / "first", seed=4)
    second, again = trained(tmp_path / "second", seed=4)
    assert first == second
    assert first.digest == second.digest
    assert versions == again
    other, differing = trained(tmp_path / "seed", seed=5)
    assert other.digest != first.digest
    assert differing != versions
    more, _ = trained(tmp_path / "rows", seed=4, rows=13)
    assert more.spec == first.spec
    assert {name: origin.data for name, origin in more.owners.items()} != {
        name: origin.data for name, origin in first.owners.items()
    }


def test_a_manifest_tells_versions_seed_trainer_and_configuration(tmp_path: Path):
    manifest, _ = trained(tmp_path, seed=4)
    assert (manifest.task, manifest.seed) == ("line-1", 4)
    assert manifest.researcher.environment.torch == torch.__version__
    assert manifest.researcher.environment.numpy == np.__version__
    assert sorted(manifest.owners) == ["alice", "bob"]
    assert all(origin.trainer == "loop" and len(origin.data) == 64 for origin in manifest.owners.values())
    assert manifest.configuration["rounds"] == 2
    assert manifest.configuration["local"]["optimizer"]["options"]["lr"] == 0.05
    assert replace(manifest, task="line-2").digest == manifest.digest


def test_an_earlier_version_is_where_the_next_task_starts(federation: Federation):
    federation.start("bob")
    first = federation.researcher.publish(line_task(), rounds=2, goal=1, plan=False)
    digests = {version.number: version.digest for version in first.follow()}
    for initial, number in (("line-1@1", 1), ((first, 1), 1), (first, 2)):
        run = federation.researcher.publish(line_task(initial=initial), rounds=1, goal=1, plan=False)
        assert run.spec.initial == digests[number]
        federation.researcher.cancel(run.id)


def test_an_earlier_version_that_there_is_not_is_named(federation: Federation):
    with pytest.raises(NotFound, match="no task 'nothing'"):
        federation.researcher.publish(line_task(initial="nothing@3"), rounds=1, goal=1, plan=False)
    with pytest.raises(DataError, match=r"cannot read nothing\.safetensors"):
        federation.researcher.publish(line_task(initial="nothing.safetensors"), rounds=1, goal=1, plan=False)
    other = federation.researcher.publish(
        line_task(name="frozen", roles={"scale": "buffer"}), rounds=1, goal=1, plan=False
    )
    with pytest.raises(TaskError, match=r"initial weights of task 'line': array 'layers.0.weight' is float32 \(2, 3\)"):
        federation.researcher.publish(
            line_task(initial={**other.params(0), "layers.0.weight": np.zeros((2, 3), np.float32)}),
            rounds=1,
            goal=1,
            plan=False,
        )


def test_a_task_without_test_rows_has_nothing_to_measure_on(federation: Federation):
    run = federation.researcher.publish(line_task(), rounds=1, goal=1, plan=False)
    with pytest.raises(DataError, match="task 'line' has no test rows"):
        run.evaluate(line_task())
    data = line_data("me").arrays
    measured = run.evaluate(line_task(test=(data["x"], data["y"])))
    assert measured == run.evaluate(line_task(), 0, (data["x"], data["y"]))

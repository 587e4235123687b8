"""Folding updates with trees beside the delta, in blocks, gives what whole arrays give."""

from collections.abc import Mapping

import numpy as np
import pytest

from shoal.algorithms import registry
from shoal.algorithms.rule import section
from shoal.algorithms.strategy import first_memory, next_version
from shoal.core.task import ArraySpec, Component, LocalPlan, RoundPlan, TaskSpec
from shoal.core.tree import Tree, digest, encode
from shoal.core.types import ModelVersion, Update
from shoal.rounds.effects import Contribution, Fold
from shoal.server import storage as stored
from shoal.server.fold import fold
from shoal.server.storage import Storage
from shoal.store.memory import MemoryBlobs, MemoryStore
from shoal.wire.codec import decode_tree, join_trees

ARRAYS = {"w": ArraySpec((5, 3), "float32"), "bias": ArraySpec((), "float32"), "head": ArraySpec((7,), "float32")}
PLAN = RoundPlan(goal=3)


def spec(rule: Component, aggregator: str, server: Component) -> TaskSpec:
    local = LocalPlan(rule=rule)
    found = registry.local_rule(local)
    assert found is not None
    component = Component(aggregator)
    return TaskSpec(
        "t", ARRAYS, 2, PLAN, local=local, aggregator=component, server=server, extra=found.extra_trees(ARRAYS)
    )


SPECS = [
    spec(Component("scaffold", {"participation": 0.5}), "mean", Component("sgd")),
    spec(Component("scaffold", {"participation": 0.5}), "mean", Component("momentum")),
    spec(Component("fednova"), "normalised_mean", Component("sgd")),
    spec(Component("qfedavg"), "fair_mean", Component("sgd")),
    spec(Component("feddyn"), "mean", Component("feddyn", {"alpha": 0.5, "participation": 0.5})),
]


def kept(storage: Storage, tree: Tree) -> str:
    writer = storage.blobs.writer("published")
    writer.write(encode(tree))
    return writer.commit()


def updates(task: TaskSpec, seed: int) -> list[Update]:
    rng = np.random.default_rng(seed)

    def drawn(arrays: Mapping[str, ArraySpec]) -> Tree:
        return {name: np.asarray(1 + rng.random(array.shape), array.dtype) for name, array in arrays.items()}

    return [
        Update(f"a{i}", drawn(ARRAYS), (i + 1) << 16, {}, {tree: drawn(arrays) for tree, arrays in task.extra.items()})
        for i in range(3)
    ]


@pytest.mark.parametrize("task", SPECS, ids=lambda task: f"{task.local.rule.name}-{task.server.name}")
@pytest.mark.parametrize("block", [4, 1000])
def test_blocks_give_the_bits_of_whole_arrays(task: TaskSpec, block: int, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(stored, "BLOCK", block)
    storage = Storage(MemoryStore(), MemoryBlobs())
    aggregator, server = registry.aggregator(task.aggregator), registry.server_optimizer(task.server)
    params: Tree = {name: np.ones(array.shape, np.float32) for name, array in ARRAYS.items()}
    memory = first_memory(ARRAYS, params, server, registry.shared_trees(task.local))
    base = ModelVersion(0, kept(storage, params), "", 0.0)
    for number in (1, 2):
        given = updates(task, number)
        parts = [Contribution(each.assignment, kept(storage, join_trees(each.trees)), each.weight) for each in given]
        folded = fold(task, Fold(number, 1, base, tuple(parts), 1.0), storage)
        state = aggregator.init(task)
        for update in given:
            state = aggregator.add(state, update)
        params, memory = next_version(ARRAYS, params, aggregator.finish(state), server, memory)
        assert folded.digest == digest(params)
        assert folded.checkpoint == (digest(memory) if memory else "")
        base = ModelVersion(number, folded.digest, base.digest, 0.0, folded.checkpoint)


def test_control_variates_add_up_over_versions_by_hand():
    # two rounds in which the mean of what three devices send for the bias, weighted 1, 2 and 3, is added to c
    task = SPECS[0]
    storage = Storage(MemoryStore(), MemoryBlobs())
    params: Tree = {name: np.zeros(array.shape, np.float32) for name, array in ARRAYS.items()}
    base = ModelVersion(0, kept(storage, params), "", 0.0)
    for number in (1, 2):
        parts = []
        for i in range(3):
            extra = {"control": {name: np.full(array.shape, i, np.float32) for name, array in ARRAYS.items()}}
            joined = join_trees({"delta": params, **extra})
            parts.append(Contribution(f"a{i}", kept(storage, joined), (i + 1) << 16))
        folded = fold(task, Fold(number, 1, base, tuple(parts), 1.0), storage)
        base = ModelVersion(number, folded.digest, base.digest, 0.0, folded.checkpoint)
    # (1 * 0 + 2 * 1 + 3 * 2) / 6 = 4 / 3 a round
    found = section(decode_tree(b"".join(storage.blobs.open(folded.checkpoint))), "control", ARRAYS)
    assert found["bias"] == pytest.approx(8 / 3)
    assert found["w"].shape == (5, 3)

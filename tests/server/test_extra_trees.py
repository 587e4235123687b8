"""What an update carries beside its delta is checked as the delta is, and so is what a task says about it."""

import hashlib
from dataclasses import replace

import numpy as np
import pytest

from shoal.algorithms import registry
from shoal.core.errors import SimulationOnly, TaskError
from shoal.core.task import Component, LocalPlan, TaskSpec
from shoal.core.tree import Tree
from shoal.wire.codec import encode_trees, frame, read_head
from tests.server.conftest import Served, delta, report_body, spec
from tests.server.conftest import served as served

RULE = Component("scaffold", {"participation": 0.5})


def controlled(**changes: object) -> TaskSpec:
    rule = registry.local_rule(LocalPlan(rule=RULE))
    assert rule is not None
    plain = spec(goal=1, local=LocalPlan(rule=RULE))
    return replace(plain, **{"extra": rule.extra_trees(plain.arrays), **changes})  # type: ignore[arg-type]


def body(trees: dict[str, Tree]) -> bytes:
    plain = report_body(delta(1.0))
    length = int.from_bytes(plain[:4], "little")
    data = encode_trees(trees)
    head = replace(read_head(plain[4 : 4 + length]), digest=hashlib.sha256(data).hexdigest(), size=len(data))
    return frame(head, data)


def control(value: float) -> Tree:
    return {name: array for name, array in delta(value).items() if name in ("w", "b")}


@pytest.mark.parametrize(
    ("extra", "said"),
    [
        ({}, "lacks the arrays ['control/b', 'control/w']"),
        ({"control": control(1.0), "more": control(1.0)}, "unknown arrays ['more/b', 'more/w']"),
        ({"control": {**control(1.0), "w": np.full((2, 3), np.nan, np.float32)}}, "control/w"),
        ({"control": {**control(1.0), "w": np.full((2, 3), 9.0, np.float32)}}, "the task takes values up to 8"),
        ({"control": {**control(1.0), "w": np.zeros((3, 2), np.float32)}}, "array 'control/w' has shape (3, 2)"),
        ({"control": {**control(1.0), "w": np.zeros((2, 3), np.float64)}}, "array 'control/w' has dtype float64"),
    ],
)
def test_a_tree_that_is_not_the_tasks_is_refused(served: Served, extra: dict[str, Tree], said: str) -> None:
    served.publish(controlled())
    given = served.check_in("bob").assignment
    assert given is not None
    answer = served.report("bob", given.id, body({"delta": delta(1.0), **extra}))
    assert answer.status_code == 422
    assert said in answer.text


def test_what_devices_share_comes_with_the_next_assignment(served: Served) -> None:
    task = served.publish(controlled())
    first = served.check_in("bob").assignment
    assert first is not None
    assert first.checkpoint == ""
    answer = served.report("bob", first.id, body({"delta": delta(1.0), "control": control(0.5)}))
    assert answer.status_code == 200
    [version] = served.versions(task.id, after=0).versions
    second = served.check_in("bob").assignment
    assert second is not None
    assert (second.version, second.checkpoint) == (version.digest, version.checkpoint)
    assert version.checkpoint


def test_a_task_whose_updates_carry_other_trees_than_its_rules_is_refused() -> None:
    with pytest.raises(TaskError, match=r"the local rule 'scaffold' and the extra trees \[\]"):
        registry.check_servable(controlled(extra={}))
    with pytest.raises(SimulationOnly, match="the server optimizer 'momentum', which keeps a state"):
        registry.check_servable(controlled(server=Component("momentum")))

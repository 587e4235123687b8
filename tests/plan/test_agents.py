"""A round in which one owner trains with the task's code and torch, and another by its plan alone."""

import pytest

from tests.agent.conftest import federation as federation
from tests.agent.federation import Federation, line_data, line_task

pytestmark = pytest.mark.slow


def test_torch_and_plan_make_one_version_together(federation: Federation) -> None:
    federation.start("alice")
    federation.start("bob", line_data("bob"), None, plans=("line",))
    run = federation.researcher.publish(line_task(), rounds=2, goal=2, plan=True)
    versions = list(run.follow(within=60))
    assert versions[-1].number == 2
    assert federation.researcher.plan("line").digest == run.spec.exported
    assert len(federation.reported(run.id)) == 4

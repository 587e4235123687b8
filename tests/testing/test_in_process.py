"""What a run in one process cannot do is refused, not left out."""

import pytest

import shoal
from shoal import LocalPlan, RoundPlan
from shoal.core.errors import TaskError
from shoal.testing.in_process import run_in_process
from shoal.train.loop import LoopTrainer
from shoal.train.task import compile_task
from tests.simulation.cohorts import regression_clients, regression_task


def test_a_rule_of_its_own_is_refused():
    clients = {client.name: client for client in regression_clients((4, 4))}
    example = (clients["c0"].arrays["x"], clients["c0"].arrays["y"])
    task = regression_task(LocalPlan(batch_size=4), strategy=shoal.ditto(), example=example)
    compiled = compile_task(task, rounds=1, plan=RoundPlan(2))
    with pytest.raises(TaskError, match="the local rule 'ditto' in one process"):
        run_in_process(compiled, clients, LoopTrainer(task))

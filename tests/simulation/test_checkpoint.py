"""A run goes on from its checkpoint as if it had never stopped."""

import os
import signal
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

import shoal
from shoal import LocalPlan
from shoal.core.errors import CorruptStore, NotFound, TaskError
from shoal.core.tree import digest
from shoal.simulation.callbacks import EarlyStopping
from shoal.simulation.run import SimulatedRun
from shoal.simulation.selection import PowerOfChoice
from tests.simulation.cohorts import regression_clients, regression_task

PLAN = LocalPlan(epochs=2, batch_size=4, optimizer=shoal.sgd(0.05))
ROUNDS = 6

SCRIPT = """
import shoal
from tests.simulation import test_checkpoint as t
t.simulate(checkpoint={path!r}, callbacks=[lambda run: print(run.history[-1].round, flush=True)])
"""


def simulate(**options: object) -> SimulatedRun:
    task = regression_task(PLAN, strategy=shoal.fedadam(), roles={"2.bias": shoal.Role.LOCAL})
    selection = PowerOfChoice(candidates=6)
    settings = {"rounds": ROUNDS, "cohort": 4, "seed": 3, "trainer": "vmapped", "every": 1, **options}
    return shoal.simulate(task, regression_clients(), selection=selection, **settings)  # type: ignore[arg-type]


def digests(run: SimulatedRun) -> list[str]:
    return [version.digest for version in run.versions]


@pytest.mark.slow
def test_a_stopped_run_goes_on_to_the_same_versions(tmp_path: Path):
    path = tmp_path / "runs" / "a.checkpoint"

    class Cut(Exception):
        pass

    def cut(run: SimulatedRun) -> None:
        if run.history[-1].round == 4:
            raise Cut

    whole = simulate()
    with pytest.raises(Cut):
        simulate(checkpoint=path, callbacks=[cut])
    again = simulate(resume=path)
    assert digests(again) == digests(whole)
    assert [row.loss for row in again.history] == [row.loss for row in whole.history]
    assert again.choice == whole.choice
    np.testing.assert_array_equal(again.personal["c4"]["2.bias"], whole.personal["c4"]["2.bias"])
    assert digests(whole.resume(path)) == digests(again)


@pytest.mark.processes
def test_a_killed_run_goes_on_to_the_same_versions(tmp_path: Path):
    path = tmp_path / "checkpoint"
    command = [sys.executable, "-c", SCRIPT.format(path=str(path))]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True, cwd=Path(__file__).parents[2]) as process:
        assert process.stdout is not None
        for line in process.stdout:
            if int(line) == 3:
                os.kill(process.pid, signal.SIGKILL)
                break
    assert process.returncode == -signal.SIGKILL
    assert digests(simulate(resume=path)) == digests(simulate())


def test_what_is_no_checkpoint_or_one_of_another_task_is_refused(tmp_path: Path):
    path = tmp_path / "checkpoint"
    with pytest.raises(NotFound, match="no checkpoint"):
        simulate(resume=path)
    path.write_bytes(b"not a checkpoint at all")
    with pytest.raises(CorruptStore, match="is no checkpoint"):
        simulate(resume=path)
    simulate(rounds=1, checkpoint=path)
    with pytest.raises(TaskError, match="another task, 'regression' with seed 3"):
        simulate(rounds=1, seed=4, resume=path)


def test_early_stopping_keeps_the_best_version():
    task = replace(regression_task(PLAN), strategy=shoal.fedavg(lr=-0.5))  # soon away from the minimum
    stopping = EarlyStopping(patience=3)
    run = shoal.simulate(task, regression_clients(), rounds=50, trainer="vmapped", callbacks=[stopping])
    losses = run.history.column("loss")
    best = losses.index(min(losses))
    assert (stopping.best.round, len(losses)) == (best + 1, best + 1 + 3)
    assert digest(stopping.best.params) == run.history[best].digest

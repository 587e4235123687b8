"""The demo's researcher: measure the columns, publish the task, test each version, compare.

The researcher never sees a row of an owner: it knows what they release, and has rows of its own for the test.
"""

import math
from dataclasses import dataclass, fields, replace
from pathlib import Path
from typing import TYPE_CHECKING, Self

import numpy as np

from shoal.algorithms.statistics import ColumnStatistics
from shoal.core.seeds import derive
from shoal.demo.rows import Rows
from shoal.demo.screen import Screen, row
from shoal.demo.settings import Settings
from shoal.researcher.coordinator import Coordinator

if TYPE_CHECKING:
    from shoal.researcher.run import Run
    from shoal.train.evaluate import Evaluator
    from shoal.train.task import Task


@dataclass(frozen=True, slots=True, eq=False)
class Result:
    """What came out: the task, the error of its last version, the digest of the file it was written to."""

    task: "Task"
    rows: Rows
    statistics: ColumnStatistics
    mse: float
    digest: str

    def compared(self, settings: Settings) -> tuple[float, float]:
        """Return the test errors of training on all rows in one place, and of predicting the mean."""
        return central_mse(self.task, self.rows, settings), mean_mse(self.rows, self.statistics)


@dataclass(frozen=True, slots=True, eq=False)
class Federation:
    """A researcher's line to the coordinator, and what is to be done there."""

    coordinator: Coordinator
    settings: Settings
    rows: Rows

    @classmethod
    def join(cls, url: str, token: str, settings: Settings, rows: Rows) -> Self:
        """Connect to a coordinator as a researcher."""
        return cls(Coordinator.connect(url, token=token), settings, rows)

    def statistics(self) -> ColumnStatistics:
        """Ask the owners for statistics of their columns; of the rows themselves nothing is asked."""
        name = f"{self.settings.dataset}-statistics"
        return self.coordinator.statistics(self.rows.columns, goal=self.settings.owners, name=name)

    def train(self, statistics: ColumnStatistics, screen: Screen, model_path: Path) -> Result:
        """Publish the task, test and show every version, write the last one to a file."""
        import torch

        torch.set_num_threads(1)  # a model as small as this only waits for further threads
        task = task_for(self.settings, self.rows.features, statistics)
        owners = self.settings.owners
        run = self.coordinator.publish(
            task, rounds=self.settings.rounds, goal=owners, seed=self.settings.seed, plan=False
        )
        mse = self._follow(run, task, screen)
        return Result(task, self.rows, statistics, mse, run.save(model_path))

    def _follow(self, run: "Run", task: "Task", screen: Screen) -> float:
        mse = math.nan
        test = tester(task, self.rows)
        for version in run.follow():
            mse = test.measure(run.params(version))["mse"]
            screen.row(row(version, mse))
        return mse


def task_for(settings: Settings, features: int, statistics: ColumnStatistics) -> "Task":
    """Return the task, with what the owners' statistics say as a part of its model.

    The target of Boston Housing stays as it is, to compare with others; that of a user's own file may have any scale.
    """
    from shoal.demo.regression import task

    return task(
        features,
        first_columns(statistics, features) if settings.data is None else statistics,
        lr=settings.lr,
        batch_size=settings.batch_size,
        local_epochs=settings.local_epochs,
        shuffle=settings.shuffle,
    )


def first_columns(statistics: ColumnStatistics, count: int) -> ColumnStatistics:
    """Return the statistics of the first columns only."""
    return ColumnStatistics(*(getattr(statistics, field.name)[:count] for field in fields(statistics)))


def tester(task: "Task", rows: Rows) -> "Evaluator":
    """Return what measures versions on the test rows; "mse" is in the target's own unit."""
    from shoal.train.data import ClientData
    from shoal.train.evaluate import Evaluator

    return Evaluator(task, ClientData("test", rows.arrays(rows.test)))


def central_mse(task: "Task", rows: Rows, settings: Settings) -> float:
    """Return the test error of the same model and optimizer after as many passes over all training rows together."""
    from shoal.train.arrays import read_arrays
    from shoal.train.data import ClientData
    from shoal.train.loop import LoopTrainer

    travelling = [name for name, spec in task.arrays.items() if spec.role.travels]
    start = read_arrays(task.model, travelling)
    plan = replace(task.plan, epochs=settings.local_epochs * settings.rounds)
    everyone = ClientData("everyone", rows.arrays(rows.train), seed=derive(settings.seed, "central"))
    (update,) = LoopTrainer(task).train(start, plan, [everyone])
    return tester(task, rows).measure({name: start[name] + update.delta[name] for name in start})["mse"]


def mean_mse(rows: Rows, statistics: ColumnStatistics) -> float:
    """Return the test error of always predicting the mean that the owners' statistics gave."""
    return float(np.mean((rows.test.target(rows.target) - statistics.mean[-1]) ** 2))

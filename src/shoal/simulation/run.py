"""A simulated run: its model, its history, and going on with it."""

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, TypeAlias

from torch import nn

from shoal.core import html
from shoal.core.errors import ConfigurationError, NotTraceable
from shoal.core.task import TaskSpec
from shoal.core.tree import Tree
from shoal.core.types import ModelVersion
from shoal.rounds.record import RoundRecord
from shoal.simulation import checkpoint
from shoal.simulation.checkpoint import Saved
from shoal.simulation.clients import Source
from shoal.simulation.course import Course, Failure, play
from shoal.simulation.crew import Crew
from shoal.simulation.history import Row
from shoal.simulation.selection import Selection
from shoal.simulation.trainers import Choice
from shoal.simulation.virtual import VirtualRounds
from shoal.tracking.history import History
from shoal.tracking.tracker import Noted, Tracker, noting
from shoal.train.data import ClientData
from shoal.train.evaluate import evaluate, load_model
from shoal.train.task import CompiledTask, Task

Callback: TypeAlias = Callable[["SimulatedRun"], object]
"""Called after every round; what returns True ends the run."""


@dataclass(frozen=True, slots=True, eq=False)
class Setup:
    """What a run is made of, none of which a checkpoint keeps."""

    task: Task
    compiled: CompiledTask
    source: Source
    selection: Selection
    hire: Callable[[Choice], Crew]
    devices: Callable[[Saved], VirtualRounds] | None = None
    callbacks: Sequence[Callback] = ()
    trackers: Sequence[Tracker] = ()
    test: ClientData | None = None
    path: Path | None = None
    every: int = 1
    clock: Callable[[], float] = time.perf_counter


class SimulatedRun:
    """The result of `shoal.simulate`. `choice` names the trainer and says why it was chosen."""

    def __init__(self, setup: Setup, saved: Saved) -> None:
        self._setup = setup
        self._saved = saved
        self._noted = Noted(())

    @property
    def task(self) -> Task:
        """The task."""
        return self._setup.task

    @property
    def spec(self) -> TaskSpec:
        """The task's plain-data form."""
        return self._course.state.spec

    @property
    def choice(self) -> Choice:
        """The trainer and the reason for it."""
        return self._saved.choice

    @property
    def params(self) -> Tree:
        """The arrays of the newest version."""
        return self._course.params

    @property
    def versions(self) -> list[ModelVersion]:
        """Every version, the initial one first."""
        return list(self._course.state.versions)

    @property
    def history(self) -> History[Row]:
        """One row a round."""
        return History(self._saved.rows)

    @property
    def rounds(self) -> list[RoundRecord]:
        """What happened in every round: who was selected, dropped out, came late, and how long it took."""
        return list(self._course.state.records)

    @property
    def failures(self) -> list[Failure]:
        """Clients that were kept out, by round, and why."""
        return self._course.failures

    @property
    def personal(self) -> Mapping[str, Tree]:
        """What stays with clients, by name: arrays with the role local, and what the strategy's rule keeps."""
        return self._course.personal

    @property
    def _course(self) -> Course:
        return self._saved.course

    def model(self, params: Tree | None = None) -> nn.Module:
        """Return the task's model with the arrays of the newest version, or others, in evaluation mode."""
        return load_model(self.task, self.params if params is None else params)

    def plot(self, *columns: str) -> Any:
        """Draw columns of the history (by default all losses) over the rounds and return matplotlib's axes."""
        return self.history.plot(*columns)

    def _repr_html_(self) -> str:
        state, rows = self._course.state, self.history
        told = {
            "rounds": f"{len(rows)} of {self.spec.rounds}",
            "clients": f"{self._saved.cohort} of {len(self._setup.source.names)} a round",
            "trainer": f"{self.choice.trainer}: {self.choice.reason}",
            "loss": rows[-1].loss if rows else None,
            **(rows[-1].measures if rows else {}),
            "kept out": len(self.failures) or None,
            "version": f"{state.latest.number}, {html.short(state.latest.digest)}",
        }
        return html.facts(f"simulated run of {self.spec.name}", told)

    def stop(self, reason: str) -> None:
        """End the run after this round."""
        self._course.stop(reason)

    def resume(self, path: str | Path) -> "SimulatedRun":
        """Go on from a checkpoint of this task, with this run's clients, to the last round; return this run.

        The versions that follow are those that an uninterrupted run makes, bit by bit. Raises TaskError when the
        checkpoint is of another task.
        """
        if self._setup.devices is not None:
            raise ConfigurationError("going on with a population", "devices at work are in no checkpoint: start anew")
        self._saved = checkpoint.load(Path(path), self._setup.compiled.spec)
        return self.go_on()

    def go_on(self) -> "SimulatedRun":
        """Play the rounds that are left."""
        with noting(self._setup.trackers, self.spec) as self._noted:
            return self._play()

    def _play(self) -> "SimulatedRun":
        if self._setup.devices is not None:
            virtual = self._setup.devices(self._saved)
            while not self._course.over:
                self._round(lambda: len(virtual.play()))
            return self
        while not self._course.over:
            self._as_chosen()
        return self

    def _as_chosen(self) -> None:
        """Play the rounds that are left by the trainer that was chosen, until it turns out that it cannot."""
        crew = self._setup.hire(self.choice)
        try:
            while not self._course.over:
                self._round(lambda: self._played(crew))
        except NotTraceable as error:
            if not self.choice.fallback:
                raise
            # the whole round is played again: chunks by two trainers would depend on who trained which
            self._saved = replace(self._saved, choice=self.choice.fallen_back(error.problem))
        finally:
            crew.close()

    def _played(self, crew: Crew) -> int:
        setup, course = self._setup, self._course
        names = setup.selection.choose(
            setup.source.names, self._saved.cohort, seed=self.spec.seed, round=course.state.round, seen=course.seen
        )
        remember = setup.selection.remembers
        part = play(course, crew, setup.source, setup.compiled.frozen, names, self._saved.chunk, remember=remember)
        return len(part.failures)

    def _round(self, play_round: Callable[[], int]) -> None:
        setup, course = self._setup, self._course
        began, number = setup.clock(), course.state.round
        failed = play_round()
        version = course.state.latest
        self._saved.rows.append(
            Row(
                round=number,
                digest=version.digest,
                loss=version.metrics["loss"],
                reports=version.reports,
                failed=failed,
                seconds=setup.clock() - began,
                trainer=self.choice.trainer,
                measures=self._measures(),
            )
        )
        self._noted.log(self._saved.rows[-1].cells())
        self._after(number)

    def _measures(self) -> dict[str, float]:
        setup = self._setup
        passed = {} if setup.devices is None else {"virtual_seconds": self._course.now}
        tested = {} if setup.test is None else evaluate(self.task, self.params, setup.test)
        return {**passed, **{f"test_{name}": value for name, value in tested.items()}}

    def _after(self, number: int) -> None:
        wanted = [callback(self) is True for callback in self._setup.callbacks]
        if any(wanted):
            self.stop(f"stopped after round {number}")
        if self._setup.path is not None and (number % self._setup.every == 0 or self._course.over):
            checkpoint.save(self._setup.path, self._saved)

"""`shoal.simulate`: the real rounds, strategies and aggregators over simulated clients."""

import operator
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Literal

from shoal.algorithms.participation import taking_part
from shoal.core.errors import ConfigurationError
from shoal.core.task import RoundPlan
from shoal.simulation.callbacks import progress
from shoal.simulation.checkpoint import Saved
from shoal.simulation.checkpoint import load as load_checkpoint
from shoal.simulation.chunks import chunk_size
from shoal.simulation.clients import Clients, Source, first_rows, load, source_of
from shoal.simulation.course import begin, shared
from shoal.simulation.crew import Alone, Crew
from shoal.simulation.first_look import look
from shoal.simulation.population import Population
from shoal.simulation.ray import Rays
from shoal.simulation.run import Callback, Setup, SimulatedRun
from shoal.simulation.selection import Selection, Uniform
from shoal.simulation.trainers import Choice, choose, make_trainer
from shoal.simulation.virtual import VirtualRounds
from shoal.simulation.workers import Processes
from shoal.store.durable import check_place
from shoal.tracking.tracker import Tracker
from shoal.train.data import client_data
from shoal.train.device import torch_device
from shoal.train.task import CompiledTask, Task, compile_task


def simulate(
    task: Task,
    clients: Clients,
    *,
    rounds: int,
    cohort: int | None = None,
    seed: int = 0,
    trainer: str = "auto",
    workers: int | Literal["ray"] = 1,
    device: str = "cpu",
    selection: Selection | None = None,
    callbacks: Sequence[Callback | Tracker] = (),
    checkpoint: str | Path | None = None,
    every: int = 10,
    resume: str | Path | None = None,
    chunk: int | None = None,
    population: Population | None = None,
    plan: RoundPlan | None = None,
    ray_address: str | None = None,
    show: bool = True,
) -> SimulatedRun:
    """Train a task over simulated clients and return the run.

    `clients` is a list or a mapping of (x, y) pairs, dicts of arrays or torch Datasets, or a source that loads them
    when they take part. Every round trains `cohort` of them (by default all), chosen by `selection` (by default at
    random). The same names, seed and strategy give the versions that a coordinator makes of the same reports.

    `trainer` is "loop", "vmapped", "graph", "compiled", or "auto", which measures and checks; `run.choice` says what
    it chose and why. Clients are trained `chunk` at once, by default as many as the processor's cache holds. The
    digests depend on trainer and chunk, never on the number of `workers`, which are processes; with "ray" actors on
    this machine or on the cluster at `ray_address`.

    With `checkpoint` the run is saved `every` so many rounds and at its end; `resume` goes on from such a file and
    makes the versions that an uninterrupted run makes. `task.test` is evaluated after every round.

    With a `population` the clients are devices in virtual time: they come, train and report as fast as they can, some
    never, and the coordinator's own rounds decide what counts. `plan` says by which rules (deadline, over-selection,
    late updates); a strategy with buffered rounds is simulated over a population always. See `run.rounds`.

    `callbacks` are called with the run after every round, and one that returns True ends it; a tracker
    (`shoal.tracking`) takes note of the run instead. A progress bar is drawn in terminals and notebooks; not with
    `show=False`.

    Raises ConfigurationError, DataError and TaskError for what cannot be simulated, before the first round where it
    can be seen. A client whose loss or update is NaN or infinite is kept out of its round: see `run.failures`.
    """
    _check_workers(workers, device, ray_address)
    if checkpoint is not None:
        check_place(Path(checkpoint))
    torch_device(device)
    source = source_of(clients)
    if population is None and task.strategy.buffered is not None:
        population = Population()
    if population is not None:
        _check_virtual(workers, selection, checkpoint or resume)
    elif plan is not None:
        raise ConfigurationError("a round plan without a population", "give both, or cohort=")
    plan = _round_plan(task, source, cohort, plan)
    count = plan.goal
    task = task if task.example is not None else replace(task, example=first_rows(source, task.plan.batch_size))
    task = replace(task, strategy=taking_part(task.strategy, count / len(source.names)))
    compiled = compile_task(task, rounds=rounds, plan=plan, seed=seed)
    look(task, source)
    setup = Setup(
        task=task,
        compiled=compiled,
        source=source,
        selection=selection or Uniform(),
        hire=_hire(task, compiled, source, workers, device, ray_address),
        callbacks=[*(progress(rounds) if show else []), *(c for c in callbacks if not isinstance(c, Tracker))],
        trackers=[tracker for tracker in callbacks if isinstance(tracker, Tracker)],
        test=None if task.test is None else client_data("test", task.test),
        path=None if checkpoint is None else Path(checkpoint),
        every=every,
        devices=None if population is None else _devices(population, task, compiled, source, device),
    )
    if resume is not None:
        return SimulatedRun(setup, load_checkpoint(Path(resume), compiled.spec)).go_on()
    if chunk is not None and chunk < 1:
        raise ConfigurationError(f"chunk={chunk}", "give at least 1")
    size = chunk or chunk_size(compiled.spec, count)
    # a population trains other numbers of clients at once all the time, so that no trace would be used twice
    updates = count * rounds if population is None else 0
    choice = _choice(trainer, task, compiled, source, size, updates, device)
    return SimulatedRun(setup, Saved(begin(compiled), [], choice, size, count)).go_on()


def _round_plan(task: Task, source: Source, cohort: int | None, plan: RoundPlan | None) -> RoundPlan:
    buffered = task.strategy.buffered
    goal = cohort if plan is None else plan.goal
    if cohort is not None and goal != cohort:
        raise ConfigurationError(f"cohort={cohort} and a plan with the goal {goal}", "give one of the two")
    if buffered is not None:
        goal = buffered.size if goal is None else goal
    goal = _cohort(goal, source)
    return RoundPlan(goal) if plan is None else plan


def _check_workers(workers: int | str, device: str, ray_address: str | None) -> None:
    known = workers == "ray" or (isinstance(workers, int) and workers >= 1)
    if not known or (ray_address is not None and workers != "ray"):
        raise ConfigurationError(
            f"workers={workers!r}, ray_address={ray_address!r}", 'give at least 1, or "ray" with or without an address'
        )
    if device != "cpu" and workers != 1:
        raise ConfigurationError(
            f"workers={workers!r} on the device {device!r}", "an accelerator takes one process: leave out workers"
        )


def _check_virtual(workers: int | str, selection: Selection | None, path: str | Path | None) -> None:
    """Refuse what a population cannot have: it selects itself, one report after the other, and lives in memory."""
    given = {"workers": workers if workers != 1 else None, "selection": selection, "checkpoint": path}
    for name, value in given.items():
        if value is not None:
            raise ConfigurationError(f"{name}={value!r} with a population", f"leave out {name} or the population")


def _devices(
    population: Population, task: Task, compiled: CompiledTask, source: Source, device: str
) -> Callable[[Saved], VirtualRounds]:
    def begin_virtual(saved: Saved) -> VirtualRounds:
        trainer = make_trainer(saved.choice.trainer, task, device)
        return VirtualRounds(saved.course, population, source, trainer, compiled.frozen, saved.chunk)

    return begin_virtual


def _cohort(cohort: int | None, source: Source) -> int:
    population = len(source.names)
    wrong = ConfigurationError(f"a cohort of {cohort} of {population} clients", f"give a cohort from 1 to {population}")
    try:
        count = population if cohort is None else operator.index(cohort)
    except TypeError as error:
        raise wrong from error
    if not 1 <= count <= population:
        raise wrong
    return count


def _choice(
    name: str, task: Task, compiled: CompiledTask, source: Source, size: int, updates: int, device: str
) -> Choice:
    if name != "auto":
        make_trainer(name, task, device)
        return Choice(name, "as asked for")
    names = source.names[: min(size, compiled.spec.plan.goal)]
    seen = load(source, [(name, name, index) for index, name in enumerate(names)])
    return choose(task, {**compiled.frozen, **compiled.initial}, seen, device, updates)


def _hire(
    task: Task, compiled: CompiledTask, source: Source, workers: int | str, device: str, ray_address: str | None
) -> Callable[[Choice], Crew]:
    def alone(choice: Choice) -> Alone:
        return Alone(make_trainer(choice.trainer, task, device), source, compiled.spec)

    def on_ray(choice: Choice) -> Crew:
        return Rays(lambda: alone(choice), compiled.spec, ray_address)

    def together(choice: Choice) -> Crew:
        layout = {**compiled.frozen, **compiled.initial, **shared(begin(compiled))}
        return Processes(int(workers), lambda: alone(choice), compiled.spec, layout)

    if workers == "ray":
        return on_ray
    return alone if workers == 1 else together

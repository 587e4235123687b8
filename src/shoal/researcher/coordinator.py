"""A researcher's line to a coordinator."""

from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Self
from urllib.parse import quote

import httpx

from shoal.algorithms import evaluation, measuring, registry, statistics
from shoal.algorithms import quantiles as bisection
from shoal.algorithms.evaluation import Evaluation
from shoal.core.errors import Abandoned, ConfigurationError, CorruptStore, NotFound, TaskError, Unauthorised
from shoal.core.manifest import Manifest
from shoal.core.plan import EarlyStop, Late
from shoal.core.schedule import Schedule
from shoal.core.serving import Canary, Serving
from shoal.core.subject import Subject
from shoal.core.task import RoundPlan, TaskSpec
from shoal.core.tree import Tree, digest, encode
from shoal.core.types import ModelVersion
from shoal.researcher.access import Access
from shoal.researcher.checking import POLL_SECONDS, Ranges, check_spec, found, refuse
from shoal.researcher.run import Run
from shoal.rounds.record import RoundRecord
from shoal.wire.http import Connection
from shoal.wire.messages import (
    BlobReply,
    CancelRequest,
    DeviceStatus,
    ExtendRequest,
    HeadsReply,
    NoteRequest,
    Pins,
    PromoteRequest,
    RewindRequest,
    RollBackRequest,
    TaskStatus,
    VersionRecord,
    VersionsReply,
    decode,
)
from shoal.wire.models import fetch_bytes
from shoal.wire.watching import TaskView

if TYPE_CHECKING:
    from shoal.plan.run import Plan
    from shoal.train.task import Task


class Coordinator:
    """Publishes tasks and follows them, over HTTP. A task is named by its id or by its name (the newest of it)."""

    def __init__(self, connection: Connection) -> None:
        self._connection = connection
        self.access = Access(connection)

    @classmethod
    def connect(
        cls, url: str, *, token: str, ca: Path | str | None = None, transport: httpx.BaseTransport | None = None
    ) -> Self:
        """Return a line to the coordinator at `url`, with a researcher's token. Nothing is sent yet.

        `ca` is a bundle of certificates to trust beside the usual ones. Raises ConfigurationError when it is none.
        """
        return cls(Connection(url, token, ca=ca, transport=transport))

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Close the line."""
        self._connection.close()

    def publish(
        self,
        task: "Task",
        *,
        rounds: int,
        goal: int | None = None,
        minimum: int | None = None,
        deadline: float = 600.0,
        lease: float = 120.0,
        attempts: int = 3,
        confidence: float = 0.0,
        late: Late = "drop",
        stop: EarlyStop | None = None,
        schedule: Schedule = Schedule(),  # noqa: B008  (it is frozen)
        serving: Serving = Serving(),  # noqa: B008  (it is frozen)
        seed: int = 0,
        plan: bool = True,
    ) -> Run:
        """Publish a task and return its run.

        A round closes with `goal` reports (a strategy with buffered rounds has its own), or after `deadline` seconds
        with `minimum` (by default the goal). So many devices are asked that the goal is reached with probability
        `confidence`, 0 for no more than the goal; what comes later is dropped or, with `late="carry"`, counted in the
        next round. `stop` ends the task when a metric no longer improves, `schedule` says when rounds open,
        `serving` which versions devices serve. The task's training step is exported (`shoal.plan`), so that devices
        without its code can train; with `plan=False` only owners who install the code can. Raises TaskError when the
        task cannot be trained as it is, NotExportable, naming operator, module and line, when it cannot be a plan,
        SimulationOnly when its strategy is none for devices.
        """
        from shoal.train.task import compile_task

        goal = _goal(task, goal)
        closing = RoundPlan(goal, goal if minimum is None else minimum, deadline, lease, attempts, confidence, late)
        task = self._resolved(task)
        compiled = compile_task(task, rounds=rounds, plan=closing, seed=seed, stop=stop, schedule=schedule)
        spec = replace(compiled.spec, serving=serving)
        registry.check_servable(spec)
        if plan:
            exported = _exported(task)
            self._upload(exported.tree)
            spec = replace(spec, exported=exported.digest)
        for tree in (compiled.initial, compiled.frozen, compiled.golden):
            self._upload(tree)
        return self._post(spec)

    def plan(self, task: str) -> "Plan":
        """Return the plan that a task was published with, as for an app to bring along. Raises NotFound."""
        from shoal.plan.file import MOST_BYTES
        from shoal.plan.run import from_bytes

        run = self.run(task)
        if not run.spec.exported:
            raise NotFound(f"no plan of task {run.id!r}", "publish it with one")
        return from_bytes(fetch_bytes(self._connection, run.spec.exported, MOST_BYTES))

    def check(self, task: "Task", *, goal: int, within: float = 60.0) -> Ranges:
        """Let `goal` owners compare their rows with the task's schema, and return the ranges over all of them.

        What an owner releases is how many rows it has, and the smallest and largest value of each column. Raises
        SchemaMismatch naming the owners whose rows are not what the task asks for, Abandoned when fewer than `goal`
        answered `within` seconds.
        """
        from shoal.train.task import compile_task

        compiled = compile_task(self._resolved(task), rounds=1, plan=RoundPlan(goal, goal))
        spec = check_spec(compiled.spec, goal, within)
        self._upload(statistics.nothing(len(spec.columns)))
        run = self._post(spec)
        try:
            for _ in run.follow(
                within=within, poll=POLL_SECONDS, look=lambda status: refuse(task.name, status.refusals)
            ):
                pass
            return found(spec, goal, run.params())
        finally:
            self.cancel(run.id, "the check is over")

    def _resolved(self, task: "Task") -> "Task":
        initial = task.initial
        if isinstance(initial, str) and _reference(initial):
            name, _, version = initial.rpartition("@")
            initial = (self.run(name), int(version))
        if isinstance(initial, Run):
            initial = (initial, None)
        if isinstance(initial, tuple) and len(initial) == 2 and isinstance(initial[0], Run):
            return replace(task, initial=initial[0].params(initial[1]))
        return task

    def statistics(
        self,
        columns: Sequence[str],
        *,
        goal: int,
        name: str = "statistics",
        deadline: float = 600.0,
        histogram: measuring.Edges | None = None,
        quantiles: Sequence[float] = (),
        tolerance: float = 1e-3,
    ) -> statistics.ColumnStatistics:
        """Measure columns over the rows of `goal` owners, in two passes, and wait for the result.

        `histogram` gives a number of bins between minimum and maximum, or edges (one row for all columns, or one for
        each), and takes one more pass; `quantiles`, from 0 to 1, are found by bisection to `tolerance`, a share of
        each column's range, which takes a pass for every factor of 32. Owners must have allowed both. All passes must
        be over the same rows, so let `goal` be all the owners.

        Cancels the task and raises Abandoned when a pass has no result after `deadline` seconds.
        """
        found = statistics.result(columns, self._measured(measuring.moments(columns, goal, name, deadline)))
        if histogram is not None:
            tree = self._measured(measuring.histograms(found, histogram, goal, name, deadline))
            found = replace(found, edges=tree["edges"], counts=tree["counts"])
        if quantiles:
            tree = self._measured(measuring.quantile(found, quantiles, tolerance, goal, name, deadline))
            found = replace(found, quantiles=bisection.result(tree, float(found.count[0]), quantiles))
        return found

    def evaluate(
        self, version: str, *, goal: int, metrics: Sequence[str] = ("loss",), deadline: float = 600.0
    ) -> Evaluation:
        """Measure a version, such as "boston-1@12", on the rows that `goal` owners hold out, and wait for the mean.

        Owners take part who have the task's code and hold rows out; no update travels. Without a number the newest
        version is measured. Raises NotFound, and Abandoned when there is no result after `deadline` seconds.
        """
        named, _, number = version.rpartition("@") if _reference(version) else (version, "", "")
        run = self.run(named)
        subject = Subject(run.id, run.spec.name, run.version(int(number) if number else None).digest)
        return evaluation.result(metrics, self._measured(measuring.evaluated(subject, metrics, goal, deadline)), goal)

    def _measured(self, measure: measuring.Measure) -> Tree:
        spec, start = measure
        self._upload(start)
        run = self._post(spec)
        try:
            for _ in run.follow(within=spec.plan.deadline):
                pass
        except Abandoned as error:
            self.cancel(run.id, str(error))
            raise
        return run.params()

    def pin(self, task: str, number: int, pinned: bool = True) -> Pins:
        """Keep a version where the coordinator keeps only the newest ones, or no longer; return what is pinned.

        Raises NotFound for a version that there is not, Gone for one that was removed already.
        """
        method = "PUT" if pinned else "DELETE"
        return self._connection.call(method, f"/v1/tasks/{quote(task, safe='')}/pins/{number}", None, Pins)

    def live(self) -> Iterator[TaskView]:
        """Yield where every task stands, then each task again whenever it changes, until the coordinator stops.

        A view is whole: what came between two of one task is in the later. Raises Unauthorised when the token is of
        no use any more, Unreachable when the line breaks.
        """
        for name, data in self._connection.events():
            if name == "over":
                raise Unauthorised(decode(data, str), "use another token")
            if name == "task":
                yield decode(data, TaskView)

    def tasks(self) -> list[TaskStatus]:
        """Return where every task stands."""
        return self._connection.call("GET", "/v1/tasks", None, list[TaskStatus])

    def status(self, task: str) -> TaskStatus:
        """Return where one task stands. Raises NotFound."""
        return self._connection.call("GET", f"/v1/tasks/{quote(task)}/status", None, TaskStatus)

    def versions(self, task: str) -> tuple[ModelVersion, ...]:
        """Return every version of a task, from version 0 on. Raises NotFound."""
        path = f"/v1/tasks/{quote(task)}/versions?after=-1"
        return self._connection.call("GET", path, None, VersionsReply).versions

    def models(self, task: str) -> list[VersionRecord]:
        """Return every version with its parent, round, metrics, notes and standing, oldest first. Raises NotFound."""
        return self._connection.call("GET", f"/v1/tasks/{quote(task)}/models", None, list[VersionRecord])

    def heads(self, task: str) -> HeadsReply:
        """Return which version is served, on trial, and trained from, and what happened to versions."""
        return self._connection.call("GET", f"/v1/tasks/{quote(task)}/heads", None, HeadsReply)

    def promote(
        self, task: str, number: int | None = None, *, canary: Canary | None = None, reason: str = ""
    ) -> HeadsReply:
        """Let devices serve a version, by default the newest; with a `canary`, a part of them first.

        An older version stays served until somebody promotes the newest. Raises NotFound, and Conflict for a canary
        while another one goes on.
        """
        asked = PromoteRequest(number, canary, reason)
        return self._connection.call("POST", f"/v1/tasks/{quote(task)}/promote", asked, HeadsReply)

    def rollback(self, task: str, to: int | None = None, *, reason: str = "") -> HeadsReply:
        """End a canary or, without one or with `to`, serve the version before or that one.

        What was rolled back is served again only if somebody promotes it; nothing is promoted by itself until somebody
        promotes the newest. Raises NotFound, and Conflict when there is none to go back to.
        """
        asked = RollBackRequest(to, reason)
        return self._connection.call("POST", f"/v1/tasks/{quote(task)}/rollback", asked, HeadsReply)

    def rewind(self, task: str, number: int, *, reason: str = "") -> HeadsReply:
        """Let rounds go on from an older version, which becomes the parent of the next; what is served stays.

        Work under way is dropped. Raises NotFound, Conflict while a version is being made or when the task is over.
        """
        asked = RewindRequest(number, reason)
        return self._connection.call("POST", f"/v1/tasks/{quote(task)}/rewind", asked, HeadsReply)

    def note(self, task: str, number: int, text: str) -> VersionRecord:
        """Write something down about a version. Raises NotFound."""
        path = f"/v1/tasks/{quote(task)}/models/{number}/notes"
        return self._connection.call("POST", path, NoteRequest(text), VersionRecord)

    def devices(self) -> list[DeviceStatus]:
        """Return every enrolled device."""
        return self._connection.call("GET", "/v1/devices", None, list[DeviceStatus])

    def cancel(self, task: str, reason: str = CancelRequest().reason) -> TaskStatus:
        """End a task. Raises NotFound."""
        return self._connection.call("POST", f"/v1/tasks/{quote(task)}/cancel", CancelRequest(reason), TaskStatus)

    def pause(self, task: str) -> TaskStatus:
        """Hand out no more work of a task; what is under way may still be reported. Raises NotFound, Conflict."""
        return self._connection.call("POST", f"/v1/tasks/{quote(task)}/pause", None, TaskStatus)

    def resume(self, task: str) -> TaskStatus:
        """Let a paused task go on, as if no time had passed. Raises NotFound, Conflict."""
        return self._connection.call("POST", f"/v1/tasks/{quote(task)}/resume", None, TaskStatus)

    def extend(self, task: str, rounds: int) -> TaskStatus:
        """Let a task have `rounds` rounds altogether, also after it finished. Raises NotFound, Conflict."""
        return self._connection.call("POST", f"/v1/tasks/{quote(task)}/extend", ExtendRequest(rounds), TaskStatus)

    def rounds(self, task: str) -> list[RoundRecord]:
        """Return what happened in each round: selected, dropped, late, refused and why, bytes and seconds."""
        return self._connection.call("GET", f"/v1/tasks/{quote(task)}/rounds", None, list[RoundRecord])

    def run(self, task: str) -> Run:
        """Return the run of a task that was published before. Raises NotFound."""
        identity = self.status(task).id
        spec = self._connection.call("GET", f"/v1/tasks/{quote(identity)}", None, TaskSpec)
        return Run(self._connection, identity, spec)

    def manifest(self, task: str) -> Manifest:
        """Return what a task's versions follow from. Raises NotFound."""
        return self.run(task).manifest()

    def _post(self, spec: TaskSpec) -> Run:
        status = self._connection.call("POST", "/v1/tasks", spec, TaskStatus)
        return Run(self._connection, status.id, spec)

    def _upload(self, tree: Tree) -> None:
        reply = self._connection.upload("/v1/blobs", encode(tree), BlobReply)
        if reply.digest != digest(tree):
            raise CorruptStore(f"the coordinator kept {reply.digest} for {digest(tree)}", "publish again")


def _exported(task: "Task") -> "Plan":
    try:
        from shoal.plan.exporting import export
    except ImportError as error:
        raise ConfigurationError(
            "a plan needs onnx and onnxruntime", "pip install 'shoal[onnx]', or publish without: plan=False, --no-plan"
        ) from error
    return export(task)


def _goal(task: "Task", goal: int | None) -> int:
    buffered = task.strategy.buffered
    if goal is None and buffered is None:
        raise TaskError(f"task {task.name!r} has no goal", "say how many reports complete a round: goal=...")
    return goal if goal is not None else buffered.size if buffered is not None else 1


def _reference(initial: str) -> bool:
    name, at, version = initial.rpartition("@")
    return bool(at and name) and version.isdigit() and not Path(initial).exists()

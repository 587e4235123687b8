"""A researcher's line to a coordinator."""

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Self
from urllib.parse import quote

import httpx

from shoal.algorithms import statistics
from shoal.core.errors import Abandoned, CorruptStore
from shoal.core.manifest import Manifest
from shoal.core.task import Bounds, Component, RoundPlan, TaskSpec
from shoal.core.tree import Tree, digest, encode
from shoal.core.types import ModelVersion
from shoal.researcher.checking import POLL_SECONDS, Ranges, check_spec, found, refuse
from shoal.researcher.run import Run
from shoal.wire.http import Connection
from shoal.wire.messages import BlobReply, CancelRequest, DeviceStatus, TaskStatus, VersionsReply

if TYPE_CHECKING:
    from shoal.train.task import Task


class Coordinator:
    """Publishes tasks and follows them, over HTTP. A task is named by its id or by its name (the newest of it)."""

    def __init__(self, connection: Connection) -> None:
        self._connection = connection

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
        goal: int,
        minimum: int | None = None,
        deadline: float = 600.0,
        lease: float = 120.0,
        attempts: int = 3,
        seed: int = 0,
    ) -> Run:
        """Publish a task and return its run.

        A round closes with `goal` reports, or after `deadline` seconds with `minimum` (by default the goal). Raises
        TaskError when the task cannot be trained as it is.
        """
        from shoal.train.task import compile_task

        plan = RoundPlan(goal, goal if minimum is None else minimum, deadline, lease, attempts)
        compiled = compile_task(self._resolved(task), rounds=rounds, plan=plan, seed=seed)
        for tree in (compiled.initial, compiled.frozen, compiled.golden):
            self._upload(tree)
        return self._post(compiled.spec)

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
        self, columns: Sequence[str], *, goal: int, name: str = "statistics", deadline: float = 600.0
    ) -> statistics.ColumnStatistics:
        """Measure columns over the rows of `goal` owners, in two passes, and wait for the result.

        Cancels the task and raises Abandoned when a pass has no result after `deadline` seconds.
        """
        nothing = statistics.nothing(len(columns))
        self._upload(nothing)
        spec = TaskSpec(
            name=name,
            kind="statistics",
            arrays=statistics.arrays(len(columns)),
            rounds=statistics.PASSES,
            plan=RoundPlan(goal, goal, deadline, attempts=1),
            aggregator=Component(statistics.Moments.name),
            bounds=replace(Bounds(), max_updates=max(goal, Bounds().max_updates)),
            columns=tuple(columns),
            initial=digest(nothing),
        )
        run = self._post(spec)
        try:
            for _ in run.follow(within=deadline):
                pass
        except Abandoned as error:
            self.cancel(run.id, str(error))
            raise
        return statistics.result(columns, run.params())

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

    def devices(self) -> list[DeviceStatus]:
        """Return every enrolled device."""
        return self._connection.call("GET", "/v1/devices", None, list[DeviceStatus])

    def cancel(self, task: str, reason: str = CancelRequest().reason) -> TaskStatus:
        """End a task. Raises NotFound."""
        return self._connection.call("POST", f"/v1/tasks/{quote(task)}/cancel", CancelRequest(reason), TaskStatus)

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


def _reference(initial: str) -> bool:
    name, at, version = initial.rpartition("@")
    return bool(at and name) and version.isdigit() and not Path(initial).exists()

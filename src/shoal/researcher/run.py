"""A published task as its researcher sees it."""

import math
import time
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeAlias
from urllib.parse import quote

from shoal.core import html
from shoal.core.errors import Abandoned, DataError, NotFound, ShoalError
from shoal.core.manifest import Manifest, manifest
from shoal.core.roles import Role
from shoal.core.task import TaskSpec
from shoal.core.tree import Tree, digest, pieces
from shoal.core.types import ModelVersion
from shoal.researcher.history import VersionRow
from shoal.store.durable import write_durably
from shoal.tracking.history import History
from shoal.tracking.progress import bar
from shoal.tracking.tracker import Tracker, noting
from shoal.wire.backoff import Backoff, transient
from shoal.wire.http import Connection
from shoal.wire.messages import TaskStatus, VersionsReply
from shoal.wire.models import fetch_tree

if TYPE_CHECKING:
    from torch import nn

    from shoal.train.task import Task

POLL_SECONDS = 20.0
"""For how long the coordinator holds a call for the next version."""

PATIENCE = 300.0
"""Seconds for which `Run.follow` goes on asking a coordinator that does not answer."""

Which: TypeAlias = int | ModelVersion | None
"""A version: its number, itself, or None for the newest."""


class Run:
    """One published task: `id` names it, `spec` is what was published."""

    def __init__(
        self,
        connection: Connection,
        identity: str,
        spec: TaskSpec,
        *,
        clock: Callable[[], float] = time.monotonic,
        sleep: Callable[[float], None] = time.sleep,
    ) -> None:
        self.id = identity
        self.spec = spec
        self._connection = connection
        self._clock = clock
        self._sleep = sleep
        self._frozen: Tree | None = None

    def follow(
        self,
        after: int = 0,
        *,
        patience: float = PATIENCE,
        within: float = math.inf,
        poll: float = POLL_SECONDS,
        look: Callable[[TaskStatus], None] | None = None,
    ) -> Iterator[ModelVersion]:
        """Yield each version after number `after` as it is made; end when the task is finished.

        A coordinator that is away is asked again for `patience` seconds, then the last error is raised. Raises
        Abandoned, with the reason, when the task failed or was cancelled, or no version came `within` seconds. `look`
        is shown where the task stands, at least every `poll` seconds; what it raises ends the following.
        """
        while True:
            reply = self._next(after, patience, self._clock() + within, poll, look)
            for version in reply.versions:
                after = version.number
                yield version
            if reply.status.over:
                return self._check_finished(reply.status)

    def track(
        self,
        *trackers: Tracker,
        after: int = 0,
        measure: Callable[[ModelVersion], Mapping[str, float]] | None = None,
        patience: float = PATIENCE,
        within: float = math.inf,
        show: bool = True,
    ) -> History[VersionRow]:
        """Follow to the end, as `follow` does, and return the history; trackers take note of every version.

        What `measure` makes of a version, such as `lambda version: run.evaluate(task, version)`, is noted as
        "test_<name>". A progress bar is drawn in terminals and notebooks; not with `show=False`. Raises what `follow`
        raises.
        """
        drawn = bar(self.spec.rounds) if show else None
        with noting(trackers, self.spec) as noted:
            for version in self.follow(after, patience=patience, within=within):
                tested = {} if measure is None else {f"test_{name}": of for name, of in measure(version).items()}
                noted.log({**VersionRow(version).cells(), **tested})
                if drawn is not None:
                    drawn.draw(version.number, f"{version.number}/{self.spec.rounds}  {_measured(version)}")
        return self.history

    @property
    def versions(self) -> list[ModelVersion]:
        """Every version so far, the initial one first."""
        return list(self._versions(-1, 0.0).versions)

    @property
    def history(self) -> History[VersionRow]:
        """One row for each version that devices made so far."""
        return History([VersionRow(version) for version in self._versions(0, 0.0).versions])

    def plot(self, *columns: str) -> Any:
        """Draw columns of the history (by default all losses) over the versions and return matplotlib's axes."""
        return self.history.plot(*columns)

    def _repr_html_(self) -> str:
        try:
            status = self.status()
        except ShoalError as error:  # a notebook shows the run's name all the same
            return html.facts(f"run {self.id}", {"problem": error.problem, "fix": error.fix})
        told = {
            "phase": f"{status.phase} {status.reason}".strip(),
            "rounds": f"{status.latest.number} of {self.spec.rounds}",
            "reports": None if status.over else f"{status.reports} of {status.goal} for the next version",
            **status.latest.metrics,
            "version": html.short(status.latest.digest),
        }
        return html.facts(f"run {self.id}", told)

    def _next(
        self, after: int, patience: float, until: float, poll: float, look: Callable[[TaskStatus], None] | None
    ) -> VersionsReply:
        while True:
            wait = min(poll, max(0.0, until - self._clock()))
            reply = self._patiently(after, patience, wait)
            if look is not None:
                look(reply.status)
            if reply.versions or reply.status.over:
                return reply
            if self._clock() >= until:
                raise Abandoned(
                    f"task {self.id} has {reply.status.reports} of {reply.status.goal} reports for version {after + 1}",
                    "see that its owners run and have this task's code, or give them more time",
                )

    def _patiently(self, after: int, patience: float, wait: float) -> VersionsReply:
        backoff = Backoff()
        asked = self._clock()
        while True:
            try:
                return self._versions(after, wait)
            except ShoalError as error:
                if not transient(error) or self._clock() - asked > patience:
                    raise
                self._sleep(backoff.next())

    def _versions(self, after: int, wait: float) -> VersionsReply:
        path = f"/v1/tasks/{quote(self.id)}/versions?after={after}&wait={wait:g}"
        return self._connection.call("GET", path, None, VersionsReply, wait=wait)

    def _check_finished(self, status: TaskStatus) -> None:
        if status.phase != "finished":
            raise Abandoned(f"task {self.id} {status.phase}: {status.reason}", "mend the cause, publish again")

    def version(self, number: int | None = None) -> ModelVersion:
        """Return a version by number, by default the newest. Raises NotFound."""
        reply = self._versions(-1 if number is None else number - 1, 0.0)
        if number is None:
            return reply.status.latest
        if not reply.versions or reply.versions[0].number != number:
            raise NotFound(f"task {self.id} has no version {number}", f"the newest is {reply.status.latest.number}")
        return reply.versions[0]

    def params(self, version: Which = None) -> Tree:
        """Return every array of a version, the frozen ones included; all are what their digests say."""
        found = version if isinstance(version, ModelVersion) else self.version(version)
        return {**fetch_tree(self._connection, found.digest, self.spec.travelling), **self._fixed()}

    def _fixed(self) -> Tree:
        if self._frozen is None:
            arrays = {name: spec for name, spec in self.spec.arrays.items() if spec.role is Role.FROZEN}
            self._frozen = fetch_tree(self._connection, self.spec.frozen, arrays) if arrays else {}
        return self._frozen

    def model(self, task: "Task", version: Which = None) -> "nn.Module":
        """Return a version as a module that predicts."""
        from shoal.train.evaluate import load_model

        return load_model(task, self.params(version))

    def evaluate(self, task: "Task", version: Which = None, data: Any = None) -> dict[str, float]:
        """Return the loss and the task's metrics of a version on rows, by default the task's own `test` rows.

        Rows are a pair (x, y), a dict of arrays, a Dataset or a DataLoader. Raises DataError when there are none.
        """
        from shoal.train.data import client_data
        from shoal.train.evaluate import evaluate

        rows = task.test if data is None else data
        if rows is None:
            raise DataError(f"task {task.name!r} has no test rows", "give some: Task(..., test=(x, y))")
        return evaluate(task, self.params(version), client_data("test", rows))

    def status(self) -> TaskStatus:
        """Return where the task stands."""
        return self._versions(self.spec.rounds, 0.0).status

    def manifest(self) -> Manifest:
        """Return what the task's versions follow from, with what its owners told so far."""
        return manifest(self.id, self.spec, self.status().owners)

    def save(self, path: Path | str, version: Which = None) -> str:
        """Write a version, the frozen arrays included, as a safetensors file; return the file's SHA-256.

        The file is there whole or not at all.
        """
        params = self.params(version)
        write_durably(Path(path), pieces(params))
        return digest(params)


def _measured(version: ModelVersion) -> str:
    return "  ".join(f"{name} {value:.4g}" for name, value in version.metrics.items())

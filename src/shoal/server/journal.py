"""What happened to a task, for people and for Prometheus: one log line for each step of a round, with the names of
task, round and device, and the counters that go with it. Called when an event is durable.
"""

from collections.abc import Sequence

import structlog

from shoal.rounds.effects import Abandon, Accept, Assign, Effect, End, Extend, Fold, Publish, Refuse, Serve
from shoal.rounds.events import Event, Rejected, Released, Reported
from shoal.server.metrics import Metrics
from shoal.server.tallies import Tallies
from shoal.wire import tracing

log = structlog.get_logger()


class Journal:
    """The log and the counters of one task. `task` is its id, `name` the bounded label of its counters,
    `key` the coordinator's."""

    def __init__(self, metrics: Metrics, tallies: Tallies, task: str, name: str, key: str) -> None:
        self._metrics = metrics
        self._tallies = tallies
        self._name = name
        self._log = log.bind(task=task)
        self._task = task
        self._key = key

    def happened(self, round_: int, event: Event, effects: Sequence[Effect], changed: bool) -> None:
        """Take note of an event in round `round_`, of what it led to, and whether it changed anything."""
        match event:
            case Released() if changed:
                self._log.info("released", round=round_, device=event.device, reason=event.reason)
            case Rejected():
                self._log.warning(
                    "report refused", round=round_, device=event.device, code=event.code, reason=event.reason
                )
        self._tallies.happened(event, effects, changed)
        for effect in effects:
            self._effect(round_, event, effect, changed)

    def _effect(self, round_: int, event: Event, effect: Effect, changed: bool) -> None:
        match effect:
            case Assign() if changed:
                self._metrics.assignments.labels(self._name).inc()
                self._log.info("assigned", round=effect.assignment.round, device=effect.assignment.device)
            case Extend() if changed:
                self._log.debug("renewed", round=round_, assignment=effect.assignment)
            case Accept() if changed:
                self._accepted(round_, event)
            case Refuse():
                self._refused(round_, event, effect)
            case Fold():
                self._log.info(
                    "combining", round=effect.round, attempt=effect.attempt, reports=len(effect.contributions)
                )
            case Publish():
                self._metrics.rounds.labels(self._name, "committed").inc()
                version = effect.version
                self._log.info("published", round=version.number, digest=version.digest, reports=version.reports)
            case Abandon():
                self._metrics.rounds.labels(self._name, "abandoned").inc()
                self._log.warning("round abandoned", round=effect.round, attempt=effect.attempt, reason=effect.reason)
            case Serve():
                self._log.info("version", version=effect.number, why=effect.why)
            case End():
                self._metrics.ended.labels(effect.phase).inc()
                self._log.info("task over", round=round_, phase=effect.phase, reason=effect.reason)
            case _:
                pass

    def _accepted(self, round_: int, event: Event) -> None:
        self._metrics.reports.labels(self._name, "accepted", "").inc()
        if isinstance(event, Reported):
            self._log.info("report accepted", round=round_, device=event.device, digest=event.digest, bytes=event.size)

    def _refused(self, round_: int, event: Event, effect: Refuse) -> None:
        if isinstance(event, Reported):
            self._log.warning(
                "report refused", round=round_, device=event.device, code=effect.code, reason=effect.problem
            )

    def round(self, number: int) -> tracing.Round:
        """Return the round as traces know it."""
        return tracing.Round(self._key, self._task, number)

    def combined(self, fold_seconds: float, commit_seconds: float) -> None:
        """Count how long a round took to be combined, and until its version was durable."""
        self._metrics.fold_seconds.labels(self._name).observe(fold_seconds)
        self._metrics.commit_seconds.labels(self._name).observe(commit_seconds)

"""The owner's process: checks in, works, makes the result durable, reports it, and begins again."""

import time
from collections.abc import Callable, Sequence
from dataclasses import replace
from itertools import chain
from pathlib import Path
from threading import Event
from typing import TYPE_CHECKING

import httpx

from shoal.agent.costs import Meter
from shoal.agent.data import OwnerData
from shoal.agent.home import AgentHome, Release
from shoal.agent.lease import Lease, Stopped
from shoal.agent.participant import Labour, Participant
from shoal.agent.policy import Policy
from shoal.agent.settings import LocalSettings
from shoal.agent.work import Result
from shoal.core.errors import (
    BadRequest,
    BadSignature,
    Conflict,
    DataError,
    Gone,
    NotACoordinator,
    NotFound,
    NotPermitted,
    RefusedUpdate,
    ShoalError,
    TaskError,
    TooLarge,
    Unauthorised,
    Unreachable,
)
from shoal.core.tree import digest_and_size, pieces
from shoal.core.types import Assignment
from shoal.wire import receipts, tracing
from shoal.wire.backoff import Backoff, transient
from shoal.wire.codec import frame, join_trees
from shoal.wire.http import Connection
from shoal.wire.messages import (
    CheckInReply,
    CheckInRequest,
    EnrolReply,
    EnrolRequest,
    HeadsHere,
    KeyReply,
    ReleaseRequest,
    ReportHead,
)
from shoal.wire.parts import Parts, send_report

if TYPE_CHECKING:
    from shoal.train.task import Task

POLL_SECONDS = 20.0
"""For how long a check-in without work is held by the coordinator."""


class Agent:
    """One device of one owner.

    `code` gives the owner's task. It imports torch, so it is called when there is nothing else to do, after the first
    statistics; without it the agent releases statistics only. `plans` names tasks that are trained by their plan,
    without code and torch. `token` is needed to enrol, once; without one the device asks to join, and waits until a
    person approves it. `say` is told what is about to be released, before its first byte is sent, and what went wrong.
    `clock` tells seconds since 1970. `settings` say how it trains; `ca` is a further bundle of certificates to trust.
    `labour`, made with the agent's connection, carries out assignments in place of `code`; `durable` is told the
    assignment whose report will be sent whatever happens, before it is. `parts` says which reports are sent in parts
    that survive a cut.
    """

    def __init__(
        self,
        url: str,
        name: str,
        home: AgentHome,
        data: OwnerData,
        *,
        token: str | None = None,
        code: "Callable[[], Task] | None" = None,
        plans: Sequence[str] = (),
        policy: Policy | None = None,
        settings: LocalSettings | None = None,
        ca: Path | str | None = None,
        say: Callable[[str], None] = print,
        transport: httpx.BaseTransport | None = None,
        wait: float = POLL_SECONDS,
        clock: Callable[[], float] = time.time,
        backoff: Backoff | None = None,
        labour: Callable[[Connection], Labour] | None = None,
        durable: Callable[[str], None] | None = None,
        parts: Parts = Parts(),  # noqa: B008  (it is frozen)
    ) -> None:
        self._home = home
        self._identity = home.identity(url, name)
        self._token = token
        self._joined = False
        self._policy = policy or Policy()
        self._say = say
        self._wait = wait
        self._clock = clock
        self._key = self._identity.key
        self._connection = Connection(url, key=self._key, clock=clock, ca=ca, transport=transport)
        self._meter = Meter(self._connection.traffic)
        self._lease = Lease(self._connection)
        code, plans = (code, plans) if self._policy.training else (None, ())
        self._participant: Labour = (
            Participant(self._connection, home, data, self._policy, code, self._lease.progress, settings, plans)
            if labour is None
            else labour(self._connection)
        )
        self._backoff = backoff or Backoff()
        self._durable = durable
        self._parts = parts
        self.receipts = 0
        self.told: tuple[HeadsHere, ...] = ()

    @property
    def connection(self) -> Connection:
        """The line to the coordinator, on which calls are this device's."""
        return self._connection

    def join(self) -> None:
        """Enrol, if this device is not enrolled yet. Raises what `run` raises, and Unreachable."""
        if not self._identity.device:
            self._enrol()
        self._pin()

    def turn(self, stop: Event) -> float:
        """Do what comes next, once: deliver what is durable, check in, work; return for how many seconds to pause.

        `receipts` counts the updates that were acknowledged. Raises Stopped, what `run` raises, and Unreachable.
        """
        return self._turn(stop)

    def progress(self) -> None:
        """Note that the work in hand moved on. Raises Gone when nobody needs it, Stopped when `turn` was told to."""
        self._lease.progress()

    def close(self) -> None:
        """Close the sockets."""
        self._connection.close()

    def run(self, stop: Event) -> None:
        """Work until `stop` is set; it is looked at between calls and between batches.

        A process that must end at once raises an exception, such as KeyboardInterrupt, from a signal handler: every
        wait here ends with it, and what was durable is sent at the next start. A coordinator that is away or busy is
        asked again, less and less often; one that no longer knows the device is joined again, once, if there is a
        token for it. Raises Unauthorised, Forbidden, WrongProtocol, Conflict (the name is taken), ConfigurationError
        and, from a device that never joined, NotACoordinator: what only a person can mend.
        """
        try:
            while not stop.is_set():
                stop.wait(self._attempt(stop))
        except Stopped:
            return
        finally:
            self._connection.close()

    def _attempt(self, stop: Event) -> float:
        try:
            return self._turn(stop)
        except Unauthorised as error:
            if not self._forgotten:
                raise
            self._say(f"enrolling again: {error.problem}")
            self._join_again()
            return 0.0
        except ShoalError as error:
            if self._hopeless(error) or not transient(error):
                raise
            return self._setback(str(error))

    def _hopeless(self, error: ShoalError) -> bool:
        """Whether a device that never joined should rather tell its user than try again."""
        misled = isinstance(error, NotACoordinator | BadSignature)
        uninvited = isinstance(error, Unreachable) and self._token is None
        return not self._identity.device and (misled or uninvited)

    @property
    def _forgotten(self) -> bool:
        """Whether a key that is not known may be so to a coordinator that began anew, and we may join again."""
        return bool(self._identity.device) and self._token is not None and not self._joined

    def _join_again(self) -> None:
        self._identity = replace(self._identity, device="", coordinator_key="")

    def _setback(self, problem: str) -> float:
        delay = self._backoff.next()
        self._say(f"{problem} (next try in {delay:.1f} s)")
        return delay

    def _turn(self, stop: Event) -> float:
        """Do what comes next and return for how many seconds to pause."""
        if not self._identity.device:
            self._enrol()
        self._pin()
        for assignment in self._home.reports():
            self._deliver(assignment)
        started, began = time.monotonic(), tracing.now()
        reply = self._check_in()
        self.told = reply.versions
        if reply.assignment is not None:
            self._lease.begin(reply.assignment, reply.lease, stop)
            with tracing.part(self._round(reply.assignment), "take part", began, device=self._identity.name):
                tracing.past("check-in", began)
                return self._carry_out(reply.assignment)
        self._backoff.reset()
        if not self._participant.ready:
            self._participant.load()
            return 0.0
        # a call that was held has waited already
        return max(0.0, reply.retry_after - (time.monotonic() - started))

    def _round(self, assignment: Assignment) -> tracing.Round:
        return tracing.Round(self._identity.coordinator_key, assignment.task, assignment.round)

    def _enrol(self) -> None:
        request = EnrolRequest(self._identity.name, self._key.public, key_type=self._key.kind)
        reply = self._connection.call("POST", "/v1/devices", request, EnrolReply, token=self._token)
        self._identity = replace(self._identity, device=reply.device)
        self._home.save(self._identity)
        self._joined = True
        self._say(f"enrolled as {self._identity.name!r} at {self._identity.url}")

    def _pin(self) -> None:
        """Take the coordinator's key for its own, once; another one is another coordinator's from then on."""
        if not self._identity.coordinator_key:
            key = self._connection.call("GET", "/v1/key", None, KeyReply).public_key
            self._identity = replace(self._identity, coordinator_key=key)
            self._home.save(self._identity)

    def _check_in(self) -> CheckInReply:
        wait = self._wait if self._participant.ready else 0.0
        request = CheckInRequest(
            self._participant.tasks,
            self._policy.statistics,
            wait,
            _utc_offset(self._clock()),
            evaluation=self._policy.evaluation,
        )
        return self._connection.call("POST", "/v1/checkin", request, CheckInReply, wait=wait)

    def _carry_out(self, assignment: Assignment) -> float:
        try:
            started = time.perf_counter()
            result = self._participant.work(assignment)
            self._release(assignment, result, time.perf_counter() - started)
        except Stopped as stopped:
            self._give_back(assignment, str(stopped))
            raise
        except (Gone, NotFound) as error:
            return self._setback(f"dropped round {assignment.round} of {assignment.task}: {error}")
        except (NotPermitted, TaskError, DataError) as error:
            return self._refuse(assignment, error)
        return 0.0

    def _release(self, assignment: Assignment, result: Result, seconds: float) -> None:
        arrays = join_trees(result.update.trees)
        digest, size = digest_and_size(arrays)
        self._say(f"releasing to {assignment.task} {result.said} ({size} bytes)")
        self._home.log(
            Release(
                self._clock(),
                assignment.task,
                assignment.round,
                result.kind,
                result.what,
                size,
                digest,
                result.norm,
            )
        )
        update = result.update
        head = ReportHead(digest, size, update.weight, dict(update.metrics), self._meter.read(seconds), result.origin)
        self._home.keep_report(assignment.id, chain([frame(head, b"")], pieces(arrays)))
        if self._durable is not None:
            self._durable(assignment.id)
        self._deliver(assignment.id)
        self._backoff.reset()

    def _deliver(self, assignment: str) -> None:
        """Send a durable report until it has its receipt, or a final answer that it will get none."""
        try:
            with tracing.span("report", assignment=assignment):
                receipt = send_report(self._connection, assignment, self._home.report(assignment), self._parts)
            receipts.check(self._identity.coordinator_key, receipt)
            self._home.keep_receipt(receipt)
            self._home.states.settle(assignment, counted=True)
            self.receipts += 1
        except (Conflict, Gone, NotFound) as error:
            self._say(f"a report was not needed: {error}")
            self._home.log(Release(self._clock(), assignment, 0, "refused", reason=f"not needed: {error}"))
        except (RefusedUpdate, BadRequest, TooLarge) as error:
            self._say(f"a report was refused: {error}")
            self._home.log(Release(self._clock(), assignment, 0, "refused", reason=f"by the coordinator: {error}"))
        self._home.states.settle(assignment, counted=False)
        self._home.drop_report(assignment)

    def _give_back(self, assignment: Assignment, reason: str) -> None:
        """Let another device have the place at once. A coordinator that is away takes it when the lease is over."""
        try:
            self._connection.call(
                "POST",
                f"/v1/assignments/{assignment.id}/release",
                ReleaseRequest(f"stopped: {reason}", again=True),
                ReleaseRequest,
            )
        except ShoalError as error:
            self._say(f"the place in round {assignment.round} of {assignment.task} was not given back: {error}")

    def _refuse(self, assignment: Assignment, error: ShoalError) -> float:
        reason = str(error)
        self._home.log(Release(self._clock(), assignment.task, assignment.round, "refused", reason=reason))
        told = ReleaseRequest(f"{error.code}: {reason}" if isinstance(error, TaskError) else reason)
        self._connection.call("POST", f"/v1/assignments/{assignment.id}/release", told, dict[str, object])
        return self._setback(f"refused round {assignment.round} of {assignment.task}: {reason}")


def _utc_offset(now: float) -> float:
    return float(time.localtime(now).tm_gmtoff)

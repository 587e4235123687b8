"""`shoal.Device`: a device whose predictions get better with use, and which sends nothing but updates."""

import secrets
import threading
import time
from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self

import httpx
import numpy as np

from shoal.agent import leaving
from shoal.agent.adopting import Adopting
from shoal.agent.agent import Agent
from shoal.agent.background import Background
from shoal.agent.conditions import Conditions
from shoal.agent.data import ArrayData
from shoal.agent.examples import ExampleStore
from shoal.agent.home import AgentHome
from shoal.agent.learner import Learner, Lesson
from shoal.agent.lease import Stopped
from shoal.agent.personal import PersonalFile, trained
from shoal.agent.sealed import Seal
from shoal.agent.standing import PROBE_SECONDS, DeviceSettings, DeviceStatus, Personalised, Which
from shoal.agent.taking_part import TakingPart
from shoal.agent.versions import VersionFiles
from shoal.core import html
from shoal.core.errors import ConfigurationError, NoRows, NotFound, RequestError, ShoalError, Unreachable
from shoal.core.seeds import derive
from shoal.core.tree import Array, Tree
from shoal.wire.http import Connection

if TYPE_CHECKING:
    from shoal.train.task import Task

_NO_ROWS = ArrayData({"x": np.zeros((1, 1), np.float32)})


class Device:
    """One user's device. Make it with `join`; use it from any thread; `close` it, or use it in a `with` statement."""

    def __init__(
        self,
        url: str,
        name: str,
        home: AgentHome,
        learner: Learner,
        settings: DeviceSettings,
        *,
        token: str | None,
        transport: httpx.BaseTransport | None,
        say: Callable[[str], None],
        clock: Callable[[], float],
    ) -> None:
        self._home = home
        self._settings = settings
        self._say = say
        self._work = threading.RLock()
        self._background: Background | None = None
        self._conditions: Conditions | None = None
        self._waiting: tuple[str, ...] = ()
        self._probed = 0.0
        self._judged: tuple[object, dict[Which, float]] = ((), {})
        self._learnt_from: object = None
        self._stop = threading.Event()
        self._seal = seal = Seal(settings.key)
        self._examples = ExampleStore(
            home.path, name, seal=seal, holdout=settings.holdout, retention=settings.retention, clock=clock
        )
        self._personal = PersonalFile(home.path, seal)
        self._learner = learner
        for assignment in home.reports():
            self._personal.settle(assignment)
        self._agent = Agent(
            url,
            name,
            home,
            _NO_ROWS,
            token=token,
            policy=settings.policy,
            ca=settings.ca,
            say=say,
            transport=transport,
            wait=0.0,
            clock=clock,
            labour=self._taking_part,
            durable=self._personal.settle,
        )

    def _taking_part(self, connection: Connection) -> TakingPart:
        kept = (self._personal, self._examples)
        files = VersionFiles(self._home.path, self._seal)
        self._adopting = Adopting(connection, self._learner, files, *kept, self._say)
        self._part = TakingPart(
            connection, self._learner, self._adopting, *kept, self._home.states, self._settings, self._progress
        )
        return self._part

    @classmethod
    def join(
        cls,
        url: str,
        *,
        home: Path | str,
        task: "Task | None" = None,
        code: str | None = None,
        plan: str | None = None,
        token: str | None = None,
        name: str | None = None,
        settings: DeviceSettings | None = None,
        transport: httpx.BaseTransport | None = None,
        say: Callable[[str], None] = lambda _: None,
        clock: Callable[[], float] = time.time,
    ) -> Self:
        """Join a coordinator, or open the home of a device that joined before, which needs neither token nor network.

        `task` is the app's own code, or `code` names it ("FILE.py:attribute"); it must be the task that the researcher
        publishes. `plan` names a task instead that was published with a plan: the device trains and predicts by that,
        with onnxruntime and without torch. Without `name` a new device draws one. `say` is told what is about to be
        released. Raises Unreachable (a first join needs the coordinator), Unauthorised, Conflict (the name is taken),
        CodeMismatch, WrongKey; by plan also PlanError and RuntimeMismatch, and NotFound before the task is published.
        """
        opened = AgentHome(Path(home).expanduser(), Seal(settings.key if settings is not None else None))
        try:
            opened = _left(opened, transport, (settings or DeviceSettings()).ca)
            known = opened.known()
            name = name or (known.name if known is not None else f"device-{secrets.token_hex(6)}")
            device = cls(
                url,
                name,
                opened,
                _learner(task, code, plan),
                settings or DeviceSettings(),
                token=token,
                transport=transport,
                say=say,
                clock=clock,
            )
        except ShoalError:
            opened.close()
            raise
        return device._joined(new=known is None or not known.device)

    def _joined(self, *, new: bool) -> Self:
        try:
            self._agent.join()
            self._refresh()
        except ShoalError as error:
            if new or not isinstance(error, RequestError | Unreachable):
                self.close()
                raise
            self._say(str(error))  # what is here works without a coordinator; sync will tell
        return self

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """End the schedule and let the home go; everything in it stays."""
        self.stop()
        self._agent.close()
        self._examples.close()
        self._home.close()

    def observe(self, x: Any, y: Any = None) -> None:
        """Keep one example, or several with a leading axis, durable on return; they stay on this device.

        A task of other arrays than x and y takes a mapping of its arrays. Raises DataError for what it cannot use.
        """
        named = x if isinstance(x, Mapping) and y is None else {"x": x, "y": y}
        self._examples.add(
            self._learner.layout.batch({str(key): self._learner.numbers(value) for key, value in named.items()})
        )

    def predict(self, x: Any) -> Array:
        """Return the output [rows, ...] for one example or several, of the model that is better here."""
        return self._learner.predict(self._own(self.serving), x)

    @property
    def serving(self) -> Which:
        """Which model predicts: the one with the lower loss on held-out examples, else the global."""
        losses = self._losses()
        return "personal" if losses.get("personal", np.inf) < losses.get("global", np.inf) else "global"

    def _own(self, which: Which) -> Tree:
        now = self._personal.now
        return now.arrays if which == "personal" else now.local

    def _losses(self) -> dict[Which, float]:
        """Return the losses on held-out examples, measured again when there are others, or other models."""
        personal, mark = self._personal.now, self._examples.mark(held=True)
        state = (personal, self._adopting.held, mark)
        if self._judged[0] != state:
            rows = self._examples.rows(held=True)
            models: dict[Which, Tree] = {"global": personal.local}
            if personal.arrays:
                models["personal"] = personal.arrays
            losses = {which: self._learner.loss(own, rows) for which, own in models.items()} if rows else {}
            self._judged = (state, {which: loss for which, loss in losses.items() if loss is not None})
        return self._judged[1]

    def personalise(self, start: Which | None = None) -> Personalised:
        """Train the personal model by the task's local plan on the examples here, without the coordinator.

        It begins from the model that serves, or from the one given. The result is kept unless it is worse, on held-out
        examples, than the personal model that it would replace. Raises NoRows without an example to train on.
        """
        with self._work:
            return self._personalise(start or self.serving)

    def _personalise(self, start: Which) -> Personalised:
        rows, now = self._examples.rows(held=False), self._personal.now
        if not rows:
            raise NoRows(f"device {self.name!r} has no example to train on", "call observe(x, y) first")
        before, former = self._losses(), now.arrays
        own = former if start == "personal" and former else {**self._learner.version, **now.local}
        name = self.name
        plan = self._learner.personal_plan
        lesson = Lesson(name, rows, derive(0, name, "personalise", now.trainings))
        learnt = self._learner.personalise(own, plan, lesson, self._may_go_on)
        held = self._examples.rows(held=True)
        after = self._learner.loss(learnt, held) if held else None
        kept = after is None or after <= before.get("personal", np.inf)
        base = self._base
        made = trained(now, learnt, now.local, base) if kept else replace(now, trainings=now.trainings + 1)
        self._personal.keep(made)
        self._learnt_from = (self._examples.mark(held=False), base)
        return Personalised(min(before.values(), default=None), after, kept)

    @property
    def _base(self) -> str:
        return self._adopting.held.version.digest if self._adopting.held is not None else ""

    def sync(self) -> bool:
        """Check in once: train when assigned, send the update, take the newest version; whether an update was accepted.

        A device with fewer examples than its policy asks for does not check in, and takes the newest version only.
        Raises Unreachable while the coordinator is away: whatever was durable is sent by the next call.
        """
        took_part, _ = self._synced(self._stop)
        return took_part

    def _synced(self, stop: threading.Event) -> tuple[bool, float]:
        with self._work:
            before, pause, self._agent.told = self._agent.receipts, PROBE_SECONDS, ()
            ready = self._examples.count(held=False) >= max(1, self._settings.policy.minimum_rows)
            if ready or self._home.reports():
                pause = self._agent.turn(stop)
            took_part = self._agent.receipts > before
            if took_part or not self._adopting.stays(self._agent.told):
                self._refresh()
            return took_part, pause

    def _refresh(self) -> bool:
        try:
            return self._adopting.refresh()
        except NotFound:
            if not self._learner.ready:
                raise
            return False  # the task is not published yet: the app's own model serves

    def run(self, conditions: Conditions | None = None) -> None:
        """Sync and personalise in the background whenever conditions hold; what runs when one ends stops at once."""
        if self._background is not None and self._background.running:
            raise ConfigurationError(f"device {self.name!r} runs already", "stop() it first")
        self._conditions = conditions or Conditions()
        self._background = Background(self._turn, self._say)

    def stop(self) -> None:
        """End what `run` began, in the middle of a training if need be."""
        if self._background is not None:
            self._background.stop()

    def _turn(self, stop: threading.Event) -> float:
        self._waiting = self._unmet()
        if self._waiting:
            return self._settings.probe_seconds
        try:
            _, pause = self._synced(stop)
            self._personalise_on(stop)
        except Stopped as stopped:
            self._say(f"stopped: {stopped}")
            return 0.0
        return pause

    def _personalise_on(self, stop: threading.Event) -> None:
        there_is = (self._examples.mark(held=False), self._base)
        if self._examples.count(held=False) and there_is != self._learnt_from and not stop.is_set():
            self.personalise()

    def _unmet(self) -> tuple[str, ...]:
        if self._conditions is None:
            return ()
        return self._conditions.unmet(self._settings.probe(), self._examples.count(held=False))

    def _progress(self) -> None:
        """End the work on an assignment when it may not go on, or is not needed. Raises Stopped, Gone."""
        self._may_go_on()
        self._agent.progress()

    def _may_go_on(self) -> None:
        """Called after every batch. Raises Stopped when the schedule was stopped, or its conditions ended."""
        background, now = self._background, time.monotonic()
        if background is None or not background.here:
            return  # the app asked for this training itself
        if background.stopping:
            raise Stopped("the app stopped it")
        if now - self._probed < self._settings.probe_seconds:
            return
        self._probed = now
        self._waiting = self._unmet()
        if self._waiting:
            raise Stopped(", ".join(self._waiting))

    @property
    def name(self) -> str:
        """The device's name at the coordinator."""
        known = self._home.known()
        return known.name if known is not None else ""

    def status(self) -> DeviceStatus:
        """Return where the device stands."""
        known, losses, running = self._home.known(), self._losses(), self._background
        held = self._adopting.held
        return DeviceStatus(
            name=self.name,
            url=known.url if known is not None else "",
            examples=self._examples.count(held=False) + self._examples.count(held=True),
            held_out=self._examples.count(held=True),
            version=held.version.number if held is not None else None,
            serving=self.serving,
            global_loss=losses.get("global"),
            personal_loss=losses.get("personal"),
            pending=len(self._home.reports()),
            released=sum(release.kind == "update" for release in self._home.releases()),
            running=running is not None and running.running,
            waiting_for=self._waiting,
            problem=running.problem if running is not None else "",
            refused=self._adopting.problem,
        )

    def _repr_html_(self) -> str:
        now = self.status()
        told = {
            "coordinator": now.url,
            "examples": f"{now.examples}, {now.held_out} of them held out",
            "version": now.version,
            "predicts by": f"the {now.serving} model",
            "loss": {
                name: loss
                for name, loss in (("global", now.global_loss), ("personal", now.personal_loss))
                if loss is not None
            },
            "updates": f"{now.released} made, {now.pending} without a receipt",
            "runs": "in the background" if now.running else "when it is told to",
            "waits for": now.waiting_for,
            "problem": now.problem,
            "refused": now.refused,
        }
        return html.facts(f"device {now.name}", told)

    def leave(self) -> None:
        """Leave for good: remove every example and model here, be revoked at the coordinator, remove the key.

        Raises Unreachable when the coordinator cannot be told now: nothing but the key is left then, and the next
        `leave` or `join` with this home goes on from there.
        """
        self.stop()
        with self._work:
            self._examples.close()
            leaving.begin(self._home.path)
            leaving.revoke(self._part.connection)
            self._agent.close()
            leaving.end(self._home.path)
            self._home.close()


def _learner(task: "Task | None", code: str | None, plan: str | None) -> Learner:
    if sum(given is not None for given in (task, code, plan)) != 1:
        raise ConfigurationError("a device with none or several of task, code and plan", "give one of them")
    if plan is not None:
        from shoal.agent.plan_learner import PlanLearner

        return PlanLearner(plan)
    from shoal.agent.code import load_task
    from shoal.agent.code_learner import CodeLearner

    return CodeLearner(task if task is not None else load_task(code or "", features=0))


def _left(home: AgentHome, transport: httpx.BaseTransport | None, ca: Path | str | None) -> AgentHome:
    """Finish a leave that was interrupted, and return the home as new. Raises Unreachable."""
    if not leaving.is_leaving(home.path):
        return home
    leaving.begin(home.path)
    known = home.known()
    if known is not None and known.device:
        agent = Agent(known.url, known.name, home, _NO_ROWS, ca=ca, transport=transport)
        try:
            leaving.revoke(agent.connection)
        finally:
            agent.close()
    leaving.end(home.path)
    home.close()
    return AgentHome(home.path, home.seal)

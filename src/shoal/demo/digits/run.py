"""The digits demo as a whole: a coordinator and owners as processes of their own, a task with its plan, a page.

It goes on until it is interrupted: people come to the page when they like.
"""

import json
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from shoal.core.errors import ConfigurationError
from shoal.core.schedule import Schedule
from shoal.data import write_csv
from shoal.demo.digits.page import check_runtime, lay_out
from shoal.demo.digits.rows import OWNED, PRETRAINED, TARGET, Rows, dealt
from shoal.demo.digits.screen import Made, Opened, Screen
from shoal.demo.imports import need_torch, uncollected
from shoal.demo.processes import Child, Children
from shoal.demo.run import ANNOUNCEMENT_SECONDS
from shoal.demo.settings import NAMES

if TYPE_CHECKING:
    from shoal.researcher.coordinator import Coordinator
    from shoal.researcher.run import Run
    from shoal.train.task import Task

NAME = "digits"
BROWSERS = 25
"""How many browsers the page's address lets in, ..."""

HOURS = 12
"""... and for how long."""

PLACES = 16
"""Devices that one round takes at most."""

DEADLINE = 8.0
"""Seconds from a round's first device to its end; a browser trains for a fraction of one."""

FOR_EVER = 1_000_000
"""Rounds, and attempts at each: a round without a browser is tried again, until somebody draws."""


@dataclass(frozen=True, slots=True)
class Settings:
    """Rounds open `every` so many seconds. `web_runtime` is a folder with the browser's runtime, if not `shoal-web`."""

    owners: int = 2
    every: float = 15.0
    port: int = 8080
    seed: int = 1
    web_runtime: Path | None = None

    @property
    def names(self) -> tuple[str, ...]:
        """What the owners are called."""
        return NAMES[: self.owners]


def run(settings: Settings, home: Path, screen: Screen) -> None:
    """Run the demo with its files in the folder `home`, until it is interrupted.

    Raises ConfigurationError when `home` was used before, the page is not built, there is no runtime for browsers or
    PyTorch is missing; Abandoned when a process dies.
    """
    need_torch()
    if (home / "server").exists():
        raise ConfigurationError(f"{home} holds a federation already", "give a new folder, or remove this one")
    check_runtime(settings.web_runtime)
    rows = dealt(settings.owners)
    lay_out(home / "page", rows.starting)
    with Children() as children:
        server = _start_server(children, settings, home)
        owners = [_start_owner(children, home / name, name, rows, place) for place, name in enumerate(settings.names)]
        screen.say(f"starting a coordinator and {len(owners)} owners: {', '.join(settings.names)}")
        screen.say(f"training the first version on {PRETRAINED} digits, {OWNED} others go to each owner")
        announced = json.loads(server.first_line(ANNOUNCEMENT_SECONDS))
        for owner in owners:
            owner.send(json.dumps({"url": announced["url"], "token": announced["enrolment_token"]}))
        with uncollected():
            import torch

            from shoal.demo.digits.task import task
            from shoal.researcher.coordinator import Coordinator
        torch.set_num_threads(1)  # a model as small as this only waits for further threads
        made = task(rows)
        with Coordinator.connect(announced["url"], token=announced["admin_token"]) as coordinator:
            published = _publish(coordinator, made, settings)
            screen.made(Made.of(published.version(0), _accuracy(published, made, 0)))
            screen.opened(_opened(coordinator, announced["url"], home))
            _follow(published, made, screen)


def _publish(coordinator: "Coordinator", task: "Task", settings: Settings) -> "Run":
    return coordinator.publish(
        task,
        rounds=FOR_EVER,
        goal=PLACES,
        minimum=settings.owners + 1,  # a browser is among them
        deadline=DEADLINE,
        attempts=FOR_EVER,
        schedule=Schedule(every=settings.every),
        seed=settings.seed,
        plan=True,
    )


def _opened(coordinator: "Coordinator", url: str, home: Path) -> Opened:
    """Make the tokens. That of the page stands behind "#", which no browser sends and the page removes at once."""
    from shoal.wire.messages import TokenRequest

    seconds = HOURS * 3600.0
    invitation = TokenRequest("enrolment", expires_in=seconds, uses=BROWSERS, scope=(NAME,))
    token, viewer = (
        coordinator.access.create(asked).token for asked in (invitation, TokenRequest("viewer", expires_in=seconds))
    )
    return Opened(url, f"{url}/page/#token={token}", viewer or "", str(home))


def _follow(run: "Run", task: "Task", screen: Screen) -> None:
    for version in run.follow():
        screen.made(Made.of(version, _accuracy(run, task, version.number)))


def _accuracy(run: "Run", task: "Task", number: int) -> float:
    return run.evaluate(task, number)["accuracy"]


def _start_server(children: Children, settings: Settings, home: Path) -> Child:
    arguments = ["server", "--home", str(home / "server"), "--port", str(settings.port), "--json", "--stop-with-stdin"]
    arguments += ["--page", str(home / "page")]
    if settings.web_runtime is not None:
        arguments += ["--web-runtime", str(settings.web_runtime)]
    return children.start("server", arguments, home / "server.log", announces=True)


def _start_owner(children: Children, home: Path, name: str, rows: Rows, place: int) -> Child:
    home.mkdir(parents=True)
    write_csv(home / "rows.csv", rows.owners[place])
    arguments = ["agent", "--url", "-", "--name", name, "--home", str(home), "--plan", NAME]
    arguments += ["--data", str(home / "rows.csv"), "--target", TARGET, "--stop-with-stdin"]
    return children.start(name, arguments, home / "agent.log")

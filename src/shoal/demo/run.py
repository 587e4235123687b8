"""The demo as a whole: start a coordinator and owners as processes of their own, train, compare.

Every part runs as it would for real. Nothing heavy is imported before the processes are on their way: what this one
imports, it imports while they start.
"""

import json
import resource
import threading
import time
from collections.abc import Iterator, Mapping
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING

from shoal.core.errors import ConfigurationError
from shoal.demo.imports import need_torch, uncollected
from shoal.demo.processes import Child, Children
from shoal.demo.screen import Outcome, Screen
from shoal.demo.settings import Settings

if TYPE_CHECKING:
    from shoal.demo.federation import Result

ANNOUNCEMENT_SECONDS = 60.0

RELEASING = "releasing to "
"""How a line begins with which an agent says what it is about to release."""


def run(settings: Settings, home: Path, model_path: Path, screen: Screen) -> Outcome:
    """Run the demo with its files in the folder `home`, and write the model to `model_path`.

    All processes have ended when the comparison begins. Raises ConfigurationError when `home` was used before,
    DataError for rows that cannot be used, Abandoned when a process dies.
    """
    started = time.perf_counter()
    need_torch()
    if (home / "server").exists():
        raise ConfigurationError(f"{home} holds a federation already", "give a new folder, or remove this one")
    with Children() as children:
        result = _federated(children, settings, home, model_path, screen)
    screen.end()
    screen.say("training the same model on all rows in one place, to compare")
    central_mse, mean_mse = result.compared(settings)
    return Outcome(
        mse=result.mse,
        central_mse=central_mse,
        mean_mse=mean_mse,
        rounds=settings.rounds,
        seconds=time.perf_counter() - started,
        cpu_seconds=cpu_seconds(),
        model_path=str(model_path),
        digest=result.digest,
    )


def cpu_seconds() -> float:
    """Return the CPU time of this process and of all children that have ended."""
    usages = [resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)]
    return sum(usage.ru_utime + usage.ru_stime for usage in usages)


def released(owner: Child) -> Iterator[str]:
    """Yield what an owner's own log says that it released so far."""
    for line in owner.log.read_text(errors="replace").splitlines():
        if line.startswith(RELEASING):
            yield line.removeprefix(RELEASING)


def _federated(children: Children, settings: Settings, home: Path, model_path: Path, screen: Screen) -> "Result":
    server = _start_server(children, home)
    owners = {name: _start_owner(children, home / name, name, settings) for name in settings.names}
    screen.say(f"starting a coordinator and {len(owners)} owners: {', '.join(owners)}")
    with uncollected():
        from shoal.demo.federation import Federation
        from shoal.demo.rows import dealt

        preparing = threading.Thread(target=import_module, args=("shoal.demo.regression",), daemon=True)
        preparing.start()  # the import of torch goes on while the others start and statistics are taken
        rows = dealt(settings)
        rows.write(home)
        url, token = _met(server, owners)
        federation = Federation.join(url, token, settings, rows)
        statistics = federation.statistics()
        for name, owner in owners.items():
            for line in released(owner):
                screen.say(f"{name} releases: {line}")
        preparing.join()
    return federation.train(statistics, screen, model_path)


def _start_server(children: Children, home: Path) -> Child:
    arguments = ["server", "--home", str(home / "server"), "--port", "0", "--json", "--stop-with-stdin"]
    return children.start("server", arguments, home / "server.log", announces=True)


def _start_owner(children: Children, home: Path, name: str, settings: Settings) -> Child:
    code = Path(__file__).parent / "regression.py"
    arguments = ["agent", "--url", "-", "--name", name, "--home", str(home), "--code", str(code)]
    arguments += ["--data", str(home / "rows.csv"), "--target", settings.column, "--stop-with-stdin"]
    return children.start(name, arguments, home / "agent.log")


def _met(server: Child, owners: Mapping[str, Child]) -> tuple[str, str]:
    """Wait for the coordinator, invite the owners, return its address and the researcher's token."""
    announced = json.loads(server.first_line(ANNOUNCEMENT_SECONDS))
    for owner in owners.values():
        owner.send(json.dumps({"url": announced["url"], "token": announced["enrolment_token"]}))
    return announced["url"], announced["admin_token"]

"""`shoal publish`, `shoal tasks` and `shoal watch`."""

import sys
from typing import Annotated

import typer

from shoal.cli.ending import reported
from shoal.cli.options import Json, Token, Url
from shoal.cli.output import print_json, print_table
from shoal.demo.imports import need_torch, uncollected


@reported
def publish(
    code: Annotated[str, typer.Argument(metavar="FILE.py:TASK", help="File and name of a shoal.Task or function.")],
    url: Url,
    token: Token,
    rounds: Annotated[int, typer.Option(min=1, help="Rounds to train.")],
    owners: Annotated[int, typer.Option(min=1, help="Reports that complete a round.")],
    features: Annotated[int, typer.Option(min=1, help="Feature columns, for a function that asks for them.")] = 1,
    seed: Annotated[int, typer.Option(help="Seed of everything random in the task.")] = 0,
    as_json: Json = False,
) -> None:
    """Publish a task for owners to train.

    Your file is run here; what travels is names, shapes, numbers and digests.
    """
    need_torch()
    with uncollected():
        from shoal.agent.code import load_task
        from shoal.researcher.coordinator import Coordinator

    task = load_task(code, features)
    with Coordinator.connect(url, token=token) as coordinator:
        run = coordinator.publish(task, rounds=rounds, goal=owners, seed=seed)
    if as_json:
        print_json({"task": run.id, "name": task.name, "rounds": rounds, "owners": owners})
    else:
        typer.echo(f"published {run.id}\nNext:\n  shoal watch {run.id}")


@reported
def tasks(url: Url, token: Token, as_json: Json = False) -> None:
    """List the tasks of a coordinator."""
    from shoal.researcher.coordinator import Coordinator

    with Coordinator.connect(url, token=token) as coordinator:
        found = coordinator.tasks()
    if as_json:
        for status in found:
            print_json(status)
        return
    rows = [
        (status.id, status.kind, status.phase, f"{status.latest.number}/{status.rounds}", status.reason)
        for status in found
    ]
    print_table(("task", "kind", "phase", "rounds", "reason"), rows)


@reported
def watch(
    url: Url,
    token: Token,
    task: Annotated[str | None, typer.Argument(help="Id or name of a task; without it, the newest.")] = None,
    as_json: Json = False,
) -> None:
    """Follow a task, one row a round, until it is over."""
    from shoal.core.errors import NotFound
    from shoal.demo.screen import JsonScreen, choose, row
    from shoal.researcher.coordinator import Coordinator

    with Coordinator.connect(url, token=token) as coordinator:
        known = [status.id for status in coordinator.tasks()]
        if task is None and not known:
            raise NotFound("no task to watch", "publish one with `shoal publish`")
        run = coordinator.run(task or known[-1])
        screen = JsonScreen(sys.stdout, sys.stderr) if as_json else choose(sys.stdout, "loss", run.spec.rounds)
        try:
            for version in run.follow():
                screen.row(row(version, version.metrics.get("loss")))
        finally:
            screen.end()

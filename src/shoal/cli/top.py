"""`shoal top`: every task as it happens."""

import sys
import time
from collections.abc import Iterator
from typing import TYPE_CHECKING

import typer

from shoal.cli.ending import reported
from shoal.cli.options import Ca, Json, Token, Url
from shoal.cli.output import print_json

if TYPE_CHECKING:
    from rich.table import Table

    from shoal.researcher.coordinator import Coordinator
    from shoal.wire.watching import TaskView

OVER = ("finished", "failed", "cancelled")
SHOWN = 40
"""Rows on the screen: those that run first, then the newest that are over."""
COLUMNS = ("task", "phase", "round", "reports", "training", "late", "dropped", "refused", "left", "loss")
NUMBERS = COLUMNS[2:]


@reported
def top(url: Url, token: Token, ca: Ca = None, as_json: Json = False) -> None:
    """Show every task live, until Ctrl-C; with --json a line for each change.

    Comes again by itself when the coordinator was away.
    """
    from shoal.researcher.coordinator import Coordinator

    with Coordinator.connect(url, token=token, ca=ca) as coordinator:
        if as_json:
            for view in _views(coordinator):
                print_json(view)
                sys.stdout.flush()
        else:
            _screen(coordinator)


def _screen(coordinator: "Coordinator") -> None:
    from rich.console import Console
    from rich.live import Live

    console = Console(highlight=False, markup=False)
    tasks: dict[str, TaskView] = {}
    with Live(_table(tasks), console=console, auto_refresh=False, screen=console.is_terminal) as live:
        for view in _views(coordinator):
            tasks[view.id] = view
            live.update(_table(tasks), refresh=True)


def _views(coordinator: "Coordinator") -> Iterator["TaskView"]:
    from shoal.core.errors import Unreachable
    from shoal.wire.backoff import Backoff

    backoff = Backoff(most=5.0)
    while True:
        try:
            for view in coordinator.live():
                backoff.reset()
                yield view
        except Unreachable as error:
            typer.echo(f"{error.problem}; trying again", err=True)
        time.sleep(backoff.next())


def _table(tasks: dict[str, "TaskView"]) -> "Table":
    from rich.table import Table

    table = Table(box=None, header_style="bold", pad_edge=False, title="Shoal", title_justify="left")
    for column in COLUMNS:
        table.add_column(column, overflow="fold", justify="right" if column in NUMBERS else "left")
    order = sorted(tasks.values(), key=lambda view: (view.phase in OVER, -view.published))
    for view in order[:SHOWN]:
        table.add_row(*_row(view))
    if not tasks:
        table.caption = "No task yet: shoal publish task.py:task --rounds 20 --owners 2"
    return table


def _row(view: "TaskView") -> list[str]:
    record, over = view.record, view.phase in OVER
    left = "-" if over or view.deadline is None else f"{max(0.0, view.deadline - view.server_time):.0f} s"
    loss = view.latest.metrics.get("loss")
    return [
        view.id,
        view.phase,
        f"{view.round}/{view.rounds}",
        f"{view.reports}/{view.goal}",
        str(view.states.get("offered", 0)),
        str(record.late),
        str(sum(record.dropped.values())),
        str(sum(record.refused.values())),
        left,
        "-" if loss is None else f"{loss:.5g}",
    ]

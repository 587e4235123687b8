"""`shoal watch`, and how a followed run is shown."""

import json
import shutil
import sys
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from typing import TYPE_CHECKING, Annotated, TextIO

import typer

from shoal.cli.ending import reported
from shoal.cli.options import Ca, Json, Token, Url
from shoal.demo.imports import need_torch, uncollected

if TYPE_CHECKING:
    from shoal.core.types import ModelVersion
    from shoal.researcher.run import Run
    from shoal.train.task import Task

Code = Annotated[
    str | None,
    typer.Option(metavar="FILE.py[:TASK]", help="Your code of the task; its `test` rows measure every version."),
]
Features = Annotated[int, typer.Option(min=1, help="Feature columns, for a function that asks for them.")]
NARROWEST = 11
UNBOUNDED = 1_000_000
COSTS = ("training s", "network s", "up", "down")


@reported
def watch(
    url: Url,
    token: Token,
    task: Annotated[str | None, typer.Argument(help="Id or name of a task; without it, the newest.")] = None,
    code: Code = None,
    features: Features = 1,
    ca: Ca = None,
    as_json: Json = False,
) -> None:
    """Follow a task, one row a round, until it is over.

    A column for each metric: those that owners report, and with --code those of your own test rows.
    """
    from shoal.core.errors import NotFound
    from shoal.researcher.coordinator import Coordinator

    mine = None if code is None else _loaded(code, features)
    with Coordinator.connect(url, token=token, ca=ca) as coordinator:
        known = [status.id for status in coordinator.tasks()]
        if task is None and not known:
            raise NotFound("no task to watch", "publish one with `shoal publish`")
        show(coordinator.run(task or known[-1]), mine, as_json=as_json)


def _loaded(code: str, features: int) -> "Task":
    need_torch()
    with uncollected():
        from shoal.agent.code import load_task
    return load_task(code, features)


def show(run: "Run", task: "Task | None", *, as_json: bool) -> None:
    """Print a row for each version of a run as it is made; versions are measured on the task's test rows, if any."""
    table = Table(sys.stdout)
    measuring = task is not None and task.test is not None
    for version in run.follow():
        test = run.evaluate(task, version) if measuring and task is not None else {}
        if as_json:
            typer.echo(json.dumps(plain(version, test)))
        else:
            table.row(version, test)


def plain(version: "ModelVersion", test: Mapping[str, float]) -> dict[str, object]:
    """Return a version's row as data: what owners measured in `metrics`, what the researcher did in `test`."""
    return {
        "round": version.number,
        "digest": version.digest,
        "reports": version.reports,
        "metrics": dict(version.metrics),
        "test": dict(test),
        **asdict(version.costs),
    }


class Table:
    """Rows of text under heads; the columns are the metrics that the first version has.

    What does not fit the terminal goes on in a further line, of the heads as of the rows.
    """

    def __init__(self, stream: TextIO) -> None:
        self._stream = stream
        self._metrics: list[str] = []
        self._test: list[str] = []
        self._widths: list[int] = []

    def row(self, version: "ModelVersion", test: Mapping[str, float]) -> None:
        """Print a row; before the first one, the heads."""
        from shoal.demo.screen import amount

        if not self._widths:
            self._begin(version.metrics, test)
        costs = version.costs
        measured = [version.metrics.get(name) for name in self._metrics] + [test.get(name) for name in self._test]
        spent = [f"{costs.train_seconds:.3f}", f"{costs.network_seconds:.3f}"]
        spent += [amount(costs.bytes_up), amount(costs.bytes_down)]
        self._print([str(version.number), *map(_number, measured), *spent])

    def _begin(self, metrics: Mapping[str, float], test: Mapping[str, float]) -> None:
        self._metrics, self._test = sorted(metrics, key=lambda name: name != "loss"), list(test)
        heads = ["round", *self._metrics, *(f"test {name}" for name in self._test), *COSTS]
        self._widths = [max(len(head) + 2, NARROWEST) for head in heads]
        self._widths[0] = len("round") + 2
        self._print(heads)

    def _print(self, cells: Sequence[str]) -> None:
        lines, most = [""], shutil.get_terminal_size((UNBOUNDED, 0)).columns
        for cell, width in zip(cells, self._widths, strict=True):
            if lines[-1] and len(lines[-1]) + width > most:
                lines.append(" " * self._widths[0])
            lines[-1] += cell.rjust(width)
        self._stream.write("\n".join(lines) + "\n")
        self._stream.flush()


def _number(value: float | None) -> str:
    return "-" if value is None else f"{value:.5g}"

"""Runs side by side: simulated ones, published ones, or both."""

import math
from collections.abc import Mapping, Sequence
from typing import Any, Protocol

from shoal.core import html
from shoal.core.errors import ConfigurationError
from shoal.core.optional import installed
from shoal.core.task import TaskSpec
from shoal.tracking.history import Cells, History, lines


class Shown(Protocol):
    """What a run is compared by."""

    @property
    def spec(self) -> TaskSpec:
        """The task."""
        ...

    @property
    def history(self) -> History[Cells]:
        """One row a round."""
        ...


class Comparison:
    """Several runs; a notebook shows for each its first, last and best value of `column`, and the best's round."""

    def __init__(self, runs: Mapping[str, Shown], column: str, *, highest: bool = False) -> None:
        # read once: of a run that goes on, all that is shown is of one moment
        self._histories = {name: run.history for name, run in runs.items()}
        self.column = column or _common(self._histories)
        self._highest = highest

    def rows(self) -> list[dict[str, Any]]:
        """Return a row for each run as a flat mapping; values of a run without a round are None."""
        return [{"run": name, **self._summary(history)} for name, history in self._histories.items()]

    def _summary(self, history: History[Cells]) -> dict[str, Any]:
        pairs = zip(history.column("round"), history.column(self.column), strict=True) if history else ()
        known = [(number, value) for number, value in pairs if value is not None and math.isfinite(value)]
        sign = -1.0 if self._highest else 1.0
        at, best = min(known, key=lambda pair: sign * pair[1], default=(None, None))
        first, last = (known[0][1], known[-1][1]) if known else (None, None)
        return {"rounds": len(history), "first": first, "last": last, "best": best, "at round": at}

    @property
    def best(self) -> str:
        """The name of the run with the best value. Raises ConfigurationError while no run has one."""
        known = [row for row in self.rows() if row["best"] is not None]
        if not known:
            raise ConfigurationError(f"no run has a value of {self.column!r}", "wait for a round")
        chosen = max if self._highest else min
        return str(chosen(known, key=lambda row: float(row["best"]))["run"])

    def to_pandas(self) -> Any:
        """Return the rows as a pandas.DataFrame. Raises ConfigurationError without pandas."""
        return installed("pandas").DataFrame(self.rows())

    def plot(self, column: str = "") -> Any:
        """Draw a column, by default the compared one, over the rounds of every run; return matplotlib's axes."""
        name = column or self.column
        drawn = {run: (history.column("round"), history.column(name)) for run, history in self._histories.items()}
        return lines(drawn, name)

    def _repr_html_(self) -> str:
        rows = self.rows()
        return f"<p>{html.cell(self.column)}</p>" + html.table(list(rows[0]), [list(row.values()) for row in rows])


def compare(runs: Mapping[str, Shown] | Sequence[Shown], column: str = "", *, highest: bool = False) -> Comparison:
    """Compare runs, given by name or in a list, by a column of their histories; with `highest` more is better.

    Runs of a list are called by their tasks' names, with a number behind a name that came before. The column is by
    default "test_loss" where all runs have it, else "loss". Raises ConfigurationError for no run or another column.
    """
    named = runs if isinstance(runs, Mapping) else _named(runs)
    if not named:
        raise ConfigurationError("a comparison of no runs", "give at least one: shoal.compare({'fedavg': run})")
    made = Comparison(named, column, highest=highest)
    made.rows()  # tells now of a column that is not there
    return made


def _named(runs: Sequence[Shown]) -> dict[str, Shown]:
    named: dict[str, Shown] = {}
    for run in runs:
        name, number = run.spec.name, 1
        while name in named:
            number += 1
            name = f"{run.spec.name} {number}"
        named[name] = run
    return named


def _common(histories: Mapping[str, History[Cells]]) -> str:
    tested = all("test_loss" in history.columns for history in histories.values() if history)
    return "test_loss" if tested and any(histories.values()) else "loss"

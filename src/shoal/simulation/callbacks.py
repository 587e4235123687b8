"""What may happen after every round: keeping the best version, stopping early, showing progress."""

import math
from typing import TextIO

from shoal.core.errors import ConfigurationError
from shoal.core.tree import Tree
from shoal.simulation.run import Callback, SimulatedRun
from shoal.tracking.progress import Bar, bar


class BestVersion:
    """Keeps the version with the smallest value of a column of the history, with `highest` the largest.

    `round` and `params` are those of the best so far; a value counts as better by more than `least`.
    """

    def __init__(self, column: str = "loss", *, least: float = 0.0, highest: bool = False) -> None:
        if not least >= 0:
            raise ConfigurationError(f"the best version with least={least}", "give least >= 0")
        self.round = 0
        self.params: Tree = {}
        self._column = column
        self._least = least
        self._sign = -1.0 if highest else 1.0
        self._best = math.inf

    def __call__(self, run: SimulatedRun) -> None:
        """Take note of the newest round."""
        value = self._sign * float(run.history.column(self._column)[-1])
        if value < self._best - self._least or self.round == 0:
            self._best, self.round, self.params = value, run.history[-1].round, run.params


class EarlyStopping:
    """Ends a run when a column of its history has not improved by `least` for `patience` rounds; `best` is kept."""

    def __init__(self, column: str = "loss", *, patience: int = 10, least: float = 0.0, highest: bool = False) -> None:
        if patience < 1:
            raise ConfigurationError(f"early stopping with patience={patience}", "give patience >= 1")
        self.best = BestVersion(column, least=least, highest=highest)
        self._patience = patience

    def __call__(self, run: SimulatedRun) -> bool:
        """Take note of the newest round; True ends the run."""
        self.best(run)
        return run.history[-1].round - self.best.round >= self._patience


class Progress:
    """Draws a bar anew after every round."""

    def __init__(self, bar: Bar, rounds: int) -> None:
        self._bar = bar
        self._rounds = rounds

    def __call__(self, run: SimulatedRun) -> None:
        """Draw it."""
        self._bar.draw(run.history[-1].round, _told(run, self._rounds))


def progress(rounds: int, stream: TextIO | None = None) -> list[Callback]:
    """Return the progress bar for where this process shows its output: a notebook, a terminal, or none in a file."""
    shown = bar(rounds, stream)
    return [] if shown is None else [Progress(shown, rounds)]


def _told(run: SimulatedRun, rounds: int) -> str:
    row = run.history[-1]
    return f"{row.round}/{rounds}  loss {row.loss:.4g}  {row.reports / row.seconds:,.0f} clients/s"

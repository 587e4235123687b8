"""What may happen after every round: stopping early, keeping the best version, showing progress."""

import math
from typing import TextIO

from shoal.core.errors import ConfigurationError
from shoal.core.tree import Tree
from shoal.simulation.run import SimulatedRun


class EarlyStopping:
    """Ends a run when a column of its history has not improved by `least` for `patience` rounds, and keeps the best.

    The smallest value is the best, with `highest` the largest. `best_round` and `best_params` are those of the best.
    """

    def __init__(self, column: str = "loss", *, patience: int = 10, least: float = 0.0, highest: bool = False) -> None:
        if patience < 1 or not least >= 0:
            raise ConfigurationError(
                f"early stopping with patience={patience}, least={least}", "give patience >= 1 and least >= 0"
            )
        self.best_round = 0
        self.best_params: Tree = {}
        self._column = column
        self._patience = patience
        self._least = least
        self._sign = -1.0 if highest else 1.0
        self._best = math.inf

    def __call__(self, run: SimulatedRun) -> bool:
        """Take note of the newest round; True ends the run."""
        number = run.history[-1].round
        value = self._sign * float(run.history.column(self._column)[-1])
        if value < self._best - self._least or self.best_round == 0:
            self._best, self.best_round, self.best_params = value, number, run.params
        return number - self.best_round >= self._patience


class ProgressBar:
    """One line that is drawn anew after every round, in a terminal and in a notebook; nothing in a file."""

    def __init__(self, stream: TextIO, rounds: int, *, width: int = 30, always: bool = False) -> None:
        self._stream = stream
        self._rounds = rounds
        self._width = width
        self._shown = always or stream.isatty()

    def __call__(self, run: SimulatedRun) -> None:
        """Draw the line."""
        if not self._shown:
            return
        row = run.history[-1]
        full = self._width * row.round // self._rounds
        bar = "#" * full + "-" * (self._width - full)
        last = row.round >= self._rounds
        text = f"\r[{bar}] {row.round}/{self._rounds}  loss {row.loss:.4g}  {row.reports / row.seconds:,.0f} clients/s"
        self._stream.write(text + ("\n" if last else ""))
        self._stream.flush()

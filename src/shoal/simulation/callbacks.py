"""What may happen after every round: keeping the best version, stopping early, showing progress."""

import math
import sys
from html import escape
from typing import Any, TextIO

from shoal.core.errors import ConfigurationError
from shoal.core.tree import Tree
from shoal.simulation.run import Callback, SimulatedRun


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


class ProgressBar:
    """One line that is drawn anew after every round."""

    def __init__(self, stream: TextIO, rounds: int, *, width: int = 30) -> None:
        self._stream = stream
        self._rounds = rounds
        self._width = width

    def __call__(self, run: SimulatedRun) -> None:
        """Draw the line."""
        row = run.history[-1]
        full = self._width * row.round // self._rounds
        bar = "#" * full + "-" * (self._width - full)
        self._stream.write(f"\r[{bar}] {_told(run, self._rounds)}" + ("\n" if row.round >= self._rounds else ""))
        self._stream.flush()


class NotebookBar:
    """A progress bar below a notebook's cell; `display` is IPython's."""

    def __init__(self, display: Any, rounds: int) -> None:
        self._display = display
        self._rounds = rounds
        self._handle: Any = None

    def __call__(self, run: SimulatedRun) -> None:
        """Draw the bar, in place of the one before."""
        row = run.history[-1]
        text = escape(_told(run, self._rounds))
        bundle = {
            "text/plain": _told(run, self._rounds),
            "text/html": f'<progress value="{row.round}" max="{self._rounds}"></progress> {text}',
        }
        if self._handle is None:
            self._handle = self._display(bundle, raw=True, display_id=True)
        else:
            self._handle.update(bundle, raw=True)


def progress(rounds: int, stream: TextIO | None = None) -> list[Callback]:
    """Return the progress bar for where this process shows its output: a notebook, a terminal, or none in a file."""
    stream = stream or sys.stderr
    shell = sys.modules.get("IPython")
    if shell is not None and "ipykernel" in sys.modules and shell.get_ipython() is not None:
        return [NotebookBar(shell.display.display, rounds)]
    return [ProgressBar(stream, rounds)] if stream.isatty() else []


def _told(run: SimulatedRun, rounds: int) -> str:
    row = run.history[-1]
    return f"{row.round}/{rounds}  loss {row.loss:.4g}  {row.reports / row.seconds:,.0f} clients/s"

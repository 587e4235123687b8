"""The screen of a run in a terminal: a table of the last rounds and a bar with the time left."""

from collections import deque
from collections.abc import Sequence

from rich.console import Console, Group
from rich.live import Live
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn
from rich.table import Table

from shoal.demo.screen import Outcome, Row, titles

SHOWN = 12
"""Rounds that the table shows."""


class LiveScreen:
    """A table that renews itself; it starts to draw with the first round."""

    def __init__(self, console: Console, score: str, rounds: int) -> None:
        self._console = console
        self._score = score
        self._rows: deque[Row] = deque(maxlen=SHOWN)
        self._bar = Progress(
            TextColumn("round"), MofNCompleteColumn(), BarColumn(), TextColumn("left"), TimeRemainingColumn()
        )
        self._task = self._bar.add_task("rounds", total=rounds)
        self._live = Live(console=console, get_renderable=self._drawn, refresh_per_second=5)

    def say(self, line: str) -> None:
        """Print the line above the table."""
        self._console.print(line, markup=False, highlight=False, soft_wrap=True)

    def row(self, row: Row) -> None:
        """Add the row to the table and move the bar."""
        self._rows.append(row)
        self._bar.update(self._task, completed=row.round)
        self._live.start()

    def end(self) -> None:
        """Stop drawing; the last rows stay."""
        self._live.stop()

    def outcome(self, outcome: Outcome, lines: Sequence[str]) -> None:
        """Print the words."""
        del outcome
        self.say("\n".join(["", *lines]))

    def _drawn(self) -> Group:
        table = Table(*(), box=None, header_style="bold", padding=(0, 1))
        for title in titles(self._score):
            table.add_column(title, justify="right", min_width=8, no_wrap=True)
        for row in self._rows:
            table.add_row(*row.cells())
        return Group(table, self._bar)

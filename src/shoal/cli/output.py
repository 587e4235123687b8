"""Printing for people and for programs."""

from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING

import typer

if TYPE_CHECKING:
    from rich.console import Console

NARROWEST = 6
"""Letters that a column must have, for a table to be read."""


def print_json(value: object) -> None:
    """Print one object on one line."""
    import msgspec

    typer.echo(msgspec.json.encode(value).decode())


def print_table(columns: Sequence[str], rows: Iterable[Sequence[object]]) -> None:
    """Print rows under their heads, as wide as the terminal allows; where heads find no room, each row as a list."""
    from rich.console import Console
    from rich.table import Table

    console = Console(highlight=False, markup=False)
    if console.width < NARROWEST * len(columns):
        _print_lists(console, columns, rows)
        return
    table = Table(box=None, header_style="bold", pad_edge=False)
    for column in columns:
        table.add_column(column, overflow="fold")
    for row in rows:
        table.add_row(*(str(cell) for cell in row))
    console.print(table)


def _print_lists(console: "Console", columns: Sequence[str], rows: Iterable[Sequence[object]]) -> None:
    from rich.table import Table

    for row in rows:
        table = Table(box=None, show_header=False, pad_edge=False)
        table.add_column(style="bold", no_wrap=True)
        table.add_column(overflow="fold")
        for column, cell in zip(columns, row, strict=True):
            table.add_row(column, str(cell))
        console.print(table, end="\n\n")


def moment(seconds: float | None) -> str:
    """Return seconds since 1970 as local date and time."""
    from datetime import datetime

    return "never" if seconds is None else datetime.fromtimestamp(seconds).astimezone().strftime("%Y-%m-%d %H:%M:%S")

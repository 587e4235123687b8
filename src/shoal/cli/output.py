"""Printing for people and for programs."""

from collections.abc import Iterable, Sequence

import typer


def print_json(value: object) -> None:
    """Print one object on one line."""
    import msgspec

    typer.echo(msgspec.json.encode(value).decode())


def print_table(columns: Sequence[str], rows: Iterable[Sequence[object]]) -> None:
    """Print rows under their heads, as wide as the terminal allows."""
    from rich.console import Console
    from rich.table import Table

    table = Table(box=None, header_style="bold", pad_edge=False)
    for column in columns:
        table.add_column(column, overflow="fold")
    for row in rows:
        table.add_row(*(str(cell) for cell in row))
    Console(highlight=False, markup=False).print(table)


def moment(seconds: float | None) -> str:
    """Return seconds since 1970 as local date and time."""
    from datetime import datetime

    return "never" if seconds is None else datetime.fromtimestamp(seconds).astimezone().strftime("%Y-%m-%d %H:%M:%S")

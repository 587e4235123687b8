"""What happened round by round, as a table: of a simulated run and of a published one."""

from collections.abc import Iterator, Mapping, Sequence
from typing import Any, Generic, Protocol, TypeVar, overload

from shoal.core import html
from shoal.core.errors import ConfigurationError
from shoal.core.optional import installed


class Cells(Protocol):
    """One row of a history."""

    def cells(self) -> dict[str, Any]:
        """Return the row as one flat mapping; "round" is its number."""
        ...


R = TypeVar("R", bound=Cells, covariant=True)


class History(Sequence[R], Generic[R]):
    """The rows of a run; a notebook shows them as a table."""

    def __init__(self, rows: Sequence[R]) -> None:
        self._rows = rows

    @overload
    def __getitem__(self, index: int) -> R: ...
    @overload
    def __getitem__(self, index: slice) -> Sequence[R]: ...
    def __getitem__(self, index: int | slice) -> R | Sequence[R]:
        """Return a round's row."""
        return self._rows[index]

    def __len__(self) -> int:
        return len(self._rows)

    def __iter__(self) -> Iterator[R]:
        return iter(self._rows)

    @property
    def columns(self) -> tuple[str, ...]:
        """The names of the columns of all rows."""
        return tuple(dict.fromkeys(name for row in self.rows() for name in row))

    def column(self, name: str) -> list[Any]:
        """Return one column, such as "loss" or "test_loss", with None for rows that lack it.

        Raises ConfigurationError for one that no row has.
        """
        names = self.columns
        if names and name not in names:
            raise ConfigurationError(f"the history has no column {name!r}", f"use one of {', '.join(names)}")
        return [row.get(name) for row in self.rows()]

    def rows(self) -> list[dict[str, Any]]:
        """Return all rows as flat mappings."""
        return [row.cells() for row in self._rows]

    def to_pandas(self) -> Any:
        """Return a pandas.DataFrame. Raises ConfigurationError without pandas."""
        return installed("pandas").DataFrame(self.rows())

    def to_polars(self) -> Any:
        """Return a polars.DataFrame. Raises ConfigurationError without polars."""
        return installed("polars").DataFrame(self.rows())

    def plot(self, *columns: str) -> Any:
        """Draw columns (by default all losses) over the rounds and return matplotlib's axes."""
        names = columns or [name for name in self.columns if name.endswith("loss")]
        return lines({name: (self.column("round"), self.column(name)) for name in names})

    def _repr_html_(self) -> str:
        names = self.columns
        rows = [[html.short(row[name]) if name == "digest" else row.get(name) for name in names] for row in self.rows()]
        return html.table(names, rows) if names else "<p>no round yet</p>"


def lines(drawn: Mapping[str, tuple[Sequence[Any], Sequence[Any]]], y: str = "") -> Any:
    """Draw named lines, each of rounds and values, and return matplotlib's axes; None leaves a gap."""
    _, axes = installed("matplotlib.pyplot").subplots(layout="constrained")
    for name, (rounds, values) in drawn.items():
        points = [float("nan") if value is None else value for value in values]
        axes.plot(rounds, points, label=name, marker="o" if len(points) == 1 else None)
    axes.set_xlabel("round")
    axes.set_ylabel(y)
    if drawn:
        axes.legend()
    return axes

"""What happened round by round, as a table."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from html import escape
from typing import Any, overload

from shoal.core.errors import ConfigurationError
from shoal.core.optional import installed


@dataclass(frozen=True, slots=True)
class Row:
    """One round: its version's digest, the weighted mean loss of its clients, how many reported and how many failed.

    `measures` holds the loss and metrics on the task's test rows as "test_<name>". `seconds` is wall time.
    """

    round: int
    digest: str
    loss: float
    reports: int
    failed: int
    seconds: float
    trainer: str
    measures: Mapping[str, float] = field(default_factory=dict[str, float])

    def cells(self) -> dict[str, Any]:
        """Return the row as one flat mapping."""
        own = {name: getattr(self, name) for name in ("round", "loss", "reports", "failed", "seconds", "trainer")}
        return {**own, **self.measures, "digest": self.digest}


class History(Sequence[Row]):
    """The rows of a run; a notebook shows them as a table."""

    def __init__(self, rows: list[Row]) -> None:
        self._rows = rows

    @overload
    def __getitem__(self, index: int) -> Row: ...
    @overload
    def __getitem__(self, index: slice) -> list[Row]: ...
    def __getitem__(self, index: int | slice) -> Row | list[Row]:
        """Return a round's row."""
        return self._rows[index]

    def __len__(self) -> int:
        return len(self._rows)

    def __iter__(self) -> Iterator[Row]:
        return iter(self._rows)

    def column(self, name: str) -> list[Any]:
        """Return one column, such as "loss" or "test_loss". Raises ConfigurationError for one that is not there."""
        rows = self.rows()
        if rows and name not in rows[0]:
            raise ConfigurationError(f"the history has no column {name!r}", f"use one of {', '.join(rows[0])}")
        return [row[name] for row in rows]

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
        pyplot = installed("matplotlib.pyplot")
        names = columns or [name for name in self.rows()[0] if name.endswith("loss")]
        _, axes = pyplot.subplots()
        for name in names:
            axes.plot(self.column("round"), self.column(name), label=name)
        axes.set_xlabel("round")
        axes.legend()
        return axes

    def _repr_html_(self) -> str:
        rows = self.rows()
        if not rows:
            return "<table></table>"
        head = "".join(f"<th>{escape(name)}</th>" for name in rows[0])
        body = "".join(f"<tr>{''.join(f'<td>{escape(_shown(v))}</td>' for v in row.values())}</tr>" for row in rows)
        return f"<table><thead><tr>{head}</tr></thead><tbody>{body}</tbody></table>"


def _shown(value: Any) -> str:
    return f"{value:.5g}" if isinstance(value, float) else str(value)[:12]

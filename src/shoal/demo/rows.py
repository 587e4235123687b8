"""The demo's rows: dealt out to owners, some kept by the researcher for the test."""

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt

from shoal.core.errors import NoRows
from shoal.data import Table, boston_table, deal, read_csv, split, write_csv
from shoal.demo.settings import Settings

MINIMUM_ROWS = 10
"""Fewer rows than this an owner's default policy keeps to itself."""


@dataclass(frozen=True, slots=True, eq=False)
class Rows:
    """All training rows, those of each owner by name, and those of the test."""

    target: str
    train: Table
    test: Table
    owners: dict[str, Table]

    @property
    def columns(self) -> tuple[str, ...]:
        """The features, then the target."""
        return (*self.train.without(self.target).columns, self.target)

    @property
    def features(self) -> int:
        """Number of feature columns."""
        return len(self.columns) - 1

    def arrays(self, table: Table) -> dict[str, npt.NDArray[np.float64]]:
        """Return a table as the model takes it: x [rows, features] and y [rows]."""
        return {"x": table.features(self.target), "y": table.target(self.target)}

    def write(self, home: Path) -> None:
        """Write each owner's rows to its own folder."""
        for name, table in self.owners.items():
            write_csv(home / name / "rows.csv", table)


def dealt(settings: Settings) -> Rows:
    """Read the rows and deal them out. Raises DataError, and NoRows when an owner would get too few to take part."""
    table = boston_table() if settings.data is None else read_csv(settings.data, settings.column)
    train, test = split(table)
    tables = deal(train, settings.owners)
    fewest = len(tables[-1].values)
    if fewest < MINIMUM_ROWS:
        raise NoRows(
            f"{len(train.values)} training rows for {settings.owners} owners leave {fewest} for one of them",
            f"an owner with fewer than {MINIMUM_ROWS} releases nothing: use fewer owners or more rows",
        )
    return Rows(settings.column, train, test, dict(zip(settings.names, tables, strict=True)))

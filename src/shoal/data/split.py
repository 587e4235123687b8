"""Cutting a table into a training and a test part, and dealing its rows out to owners."""

import numpy as np

from shoal.core.errors import DataError, NoRows
from shoal.data.tables import Table

SEED = 113
"""The seed with which Keras cuts Boston Housing, so that results compare."""


def split(table: Table, test: float = 0.2) -> tuple[Table, Table]:
    """Return a training and a test table: the rows in a fixed random order, the last `test` of them for the test.

    Raises NoRows when one of the two would be empty.
    """
    rows = len(table.values)
    order = np.arange(rows)
    np.random.RandomState(SEED).shuffle(order)
    train = int((1 - test) * rows)
    if not 0 < train < rows:
        raise NoRows(
            f"a test share of {test:g} of {rows} rows leaves one part empty", "give more rows or another share"
        )
    return table.take(order[:train]), table.take(order[train:])


def deal(table: Table, owners: int) -> list[Table]:
    """Deal rows out like cards: row i goes to owner i modulo `owners`.

    Raises DataError for fewer than one owner and NoRows when an owner would get none.
    """
    if owners < 1:
        raise DataError(f"{owners} owners", "give at least 1")
    if owners > len(table.values):
        raise NoRows(f"{len(table.values)} rows for {owners} owners", "use fewer owners")
    return [table.take(np.arange(owner, len(table.values), owners)) for owner in range(owners)]

"""What a task asks of its owners' rows: arrays by name, the dtype and shape of a row, the values that may occur."""

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from shoal.core.errors import SchemaMismatch, TaskError
from shoal.core.tree import Array

MOST_COLUMNS = 512
"""A row with more numbers than this is described as a whole, not column by column."""

KINDS = {"f": "decimal numbers", "i": "whole numbers", "u": "whole numbers", "b": "truth values"}


@dataclass(frozen=True, slots=True)
class RowSchema:
    """One array of a batch: its numpy dtype, the shape of one row of it, and the inclusive range of its values."""

    dtype: str
    shape: tuple[int, ...] = ()
    low: float | None = None
    high: float | None = None

    def __post_init__(self) -> None:
        try:
            np.dtype(self.dtype)
        except TypeError as error:
            raise TaskError(f"a schema with dtype {self.dtype!r}", "use a numpy dtype") from error
        if self.low is not None and self.high is not None and not self.low <= self.high:
            raise TaskError(f"a schema with the range {self.low} to {self.high}", "give the smaller number first")

    @property
    def bounded(self) -> bool:
        """Whether a range was declared."""
        return self.low is not None or self.high is not None

    @property
    def by_column(self) -> bool:
        """Whether the entries of a row are few enough to be looked at one by one."""
        return len(self.shape) == 1 and 0 < self.shape[0] <= MOST_COLUMNS


Schema = Mapping[str, RowSchema]


def columns(schema: Schema) -> tuple[str, ...]:
    """Return the names of what a check over all owners looks at: each column of a short row, else whole arrays."""
    return tuple(label for name, rows in sorted(schema.items()) for label in _labels(name, rows))


def _labels(name: str, rows: RowSchema) -> Iterable[str]:
    return (f"{name}[{index}]" for index in range(rows.shape[0])) if rows.by_column else (name,)


def empty_batch(schema: Schema) -> dict[str, Array]:
    """Return a batch without rows in the schema's shapes and dtypes."""
    return {name: np.empty((0, *rows.shape), rows.dtype) for name, rows in schema.items()}


def ranges(schema: Schema, arrays: Mapping[str, Array]) -> tuple[Array, Array]:
    """Return the smallest and the largest value of each entry of `columns(schema)`, in float64.

    Raises SchemaMismatch for an array that holds NaN or infinity.
    """
    for name in sorted(schema):
        affected = int((~np.isfinite(arrays[name].reshape(len(arrays[name]), -1))).any(axis=1).sum())
        if affected:
            raise SchemaMismatch(
                f"{name!r} holds NaN or infinity in {affected} of {len(arrays[name])} rows",
                "correct these rows or leave them out",
            )
    table = [_flat(arrays[name], rows) for name, rows in sorted(schema.items())]
    low = np.concatenate([values.min(axis=0) for values in table])
    return low, np.concatenate([values.max(axis=0) for values in table])


def _flat(array: Array, rows: RowSchema) -> Array:
    return (array if rows.by_column else array.reshape(-1, 1)).astype(np.float64)


def check_rows(schema: Schema, arrays: Mapping[str, Array], names: Mapping[str, Sequence[str]] | None = None) -> None:
    """Raise SchemaMismatch, naming array or column, value and number of rows, when arrays are not what a task asks.

    `names` gives the names of an array's columns, where they have any.
    """
    if not schema:
        return
    missing, surplus = sorted(schema.keys() - arrays.keys()), sorted(arrays.keys() - schema.keys())
    if missing or surplus:
        raise SchemaMismatch(
            f"the rows have the arrays {sorted(arrays)}, the task asks for {sorted(schema)}",
            "name the arrays as the task does",
        )
    for name, rows in schema.items():
        _check_layout(name, rows, arrays[name])
        _check_range(name, rows, arrays[name], (names or {}).get(name, ()))


def _check_layout(name: str, rows: RowSchema, array: Array) -> None:
    if array.shape[1:] != rows.shape:
        raise SchemaMismatch(
            f"{name!r} has rows of shape {array.shape[1:]} ({len(array)} rows), the task asks for {rows.shape}",
            "give the columns that the task was written for",
        )
    wanted = KINDS[np.dtype(rows.dtype).kind]
    if KINDS.get(array.dtype.kind) != wanted:
        raise SchemaMismatch(
            f"{name!r} has dtype {array.dtype} ({len(array)} rows), the task asks for {wanted} ({rows.dtype})",
            f"convert it with .astype({rows.dtype!r})",
        )


def _check_range(name: str, rows: RowSchema, array: Array, names: Sequence[str]) -> None:
    if not rows.bounded:
        return
    low = -math.inf if rows.low is None else rows.low
    high = math.inf if rows.high is None else rows.high
    outside = ~((array >= low) & (array <= high))  # NaN is in no range
    if not outside.any():
        return
    first = tuple(int(index) for index in np.argwhere(outside)[0])
    affected = int(outside.reshape(len(array), -1).any(axis=1).sum())
    raise SchemaMismatch(
        f"{_place(name, first[1:], names)} holds {array[first].item():g} in {affected} of {len(array)} rows, "
        f"the task asks for {low:g} to {high:g}",
        "correct these rows or leave them out",
    )


def _place(name: str, index: tuple[int, ...], names: Sequence[str]) -> str:
    if len(index) == 1 and index[0] < len(names):
        return f"column {names[index[0]]!r}"
    if not index and names:
        return f"column {names[0]!r}"
    return f"{name!r}" + (f" at {list(index)}" if index else "")

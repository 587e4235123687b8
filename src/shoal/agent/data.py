"""An owner's rows, as a table with named columns or as arrays."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np

from shoal.algorithms.registry import nearest
from shoal.algorithms.statistics import Floats
from shoal.core.errors import DataError
from shoal.core.schema import KINDS
from shoal.core.tree import Array, Tree
from shoal.data.tables import Table


@dataclass(frozen=True, slots=True, eq=False)
class TableData:
    """Rows of a table, one column of which is to be predicted. Raises DataError when there is no such column."""

    table: Table
    target: str

    def __post_init__(self) -> None:
        self.table.target(self.target)

    @property
    def rows(self) -> int:
        """Number of rows."""
        return len(self.table.values)

    @property
    def features(self) -> int:
        """Number of columns beside the target."""
        return len(self.table.columns) - 1

    def measured(self, columns: Sequence[str]) -> Floats:
        """Return these columns [rows, columns]. Raises DataError for one that is not there or asked for twice."""
        known = self.table.columns
        for column in columns:
            if column not in known:
                raise DataError(f"no column {column!r}", f"there are {', '.join(known)}{nearest(column, known)}")
        if len(set(columns)) != len(columns):
            raise DataError(f"columns {list(columns)}", "ask for each one once")
        return self.table.values[:, [known.index(column) for column in columns]]

    @property
    def names(self) -> dict[str, tuple[str, ...]]:
        """The names of the columns behind "x" and "y"."""
        return {"x": self.table.without(self.target).columns, "y": (self.target,)}

    def examples(self, like: Tree) -> dict[str, Array]:
        """Return "x" [rows, features] and "y" [rows] in the dtypes of `like`, a batch of the task's own."""
        x, y = self.table.features(self.target), self.table.target(self.target)
        return {"x": _cast("x", x, like), "y": _cast("y", y, like)}


@dataclass(frozen=True, slots=True, eq=False)
class ArrayData:
    """Examples as named arrays, the first axis counting rows.

    `columns` names the columns of an array, or an array of single numbers; statistics are of these only.
    """

    arrays: Mapping[str, Array]
    columns: Mapping[str, tuple[str, ...]] = field(default_factory=dict[str, tuple[str, ...]])

    @property
    def rows(self) -> int:
        """Number of rows."""
        return len(next(iter(self.arrays.values())))

    @property
    def features(self) -> int:
        """Length of a row of the first array."""
        first = next(iter(self.arrays.values()))
        return first.shape[1] if first.ndim > 1 else 1

    def measured(self, columns: Sequence[str]) -> Floats:
        """Return these columns [rows, columns]. Raises DataError for one that has no such name here."""
        table = {column: values for name, named in self.columns.items() for column, values in self._named(name, named)}
        unknown = [column for column in columns if column not in table]
        if unknown or len(set(columns)) != len(columns):
            raise DataError(
                f"statistics of {', '.join(unknown or columns)} from arrays with the columns {sorted(table)}",
                "ask for named columns, each once; a CSV file with a header has names",
            )
        return np.stack([table[column] for column in columns], axis=1)

    def _named(self, name: str, columns: tuple[str, ...]) -> Iterator[tuple[str, Floats]]:
        values = self.arrays[name].reshape(self.rows, -1).astype(np.float64)
        if values.shape[1] != len(columns):
            raise DataError(
                f"{len(columns)} names for the {values.shape[1]} columns of {name!r}", "give one name for each"
            )
        yield from zip(columns, values.T, strict=True)

    @property
    def names(self) -> dict[str, tuple[str, ...]]:
        """The names of columns, by array."""
        return dict(self.columns)

    def examples(self, like: Tree) -> dict[str, Array]:
        """Return the arrays in the dtypes of `like` where only the width differs; the schema judges the rest."""
        return {name: _widened(array, like.get(name)) for name, array in self.arrays.items()}


OwnerData = TableData | ArrayData


def _widened(array: Array, like: Array | None) -> Array:
    if like is None or KINDS.get(array.dtype.kind) != KINDS.get(like.dtype.kind):
        return array
    cast = array.astype(like.dtype, copy=False)
    same = array.dtype.kind == "f" or bool((cast == array).all())
    return cast if same else array


def _cast(name: str, values: Floats, like: Tree) -> Array:
    dtype = like[name].dtype if name in like else values.dtype
    if dtype.kind in "iu" and not (values == np.rint(values)).all():
        raise DataError(f"the task takes whole numbers ({dtype}) as {name!r}", "check the target column")
    return values.astype(dtype)

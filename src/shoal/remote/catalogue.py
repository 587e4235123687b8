"""The owner's data sets: what a worker tells about them, and the tensors that clients get handles to."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Literal, TypeAlias

import msgspec
import torch

from shoal.core.errors import ConfigurationError, DataError, NotFound
from shoal.data import Table
from shoal.remote.frames import NAMES
from shoal.remote.labels import Label

MOCK_ROWS = 10


class Range(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """The smallest and the largest value that a column may have, as its owner says."""

    low: float
    high: float


Columns: TypeAlias = Mapping[str, Range]


class Column(msgspec.Struct, frozen=True):
    """One array of a data set: what a client may know of it without any leave."""

    dtype: str
    shape: tuple[int, ...]
    columns: tuple[str, ...] = ()
    ranges: dict[str, Range] = {}


class Entry(msgspec.Struct, frozen=True):
    """One data set in the catalogue."""

    name: str
    tags: tuple[str, ...]
    description: str
    rows: int
    arrays: dict[str, Column]


@dataclass(frozen=True, slots=True, eq=False)
class DataSet:
    """Tensors of the owner with equal numbers of rows, under names such as "data" and "target"."""

    name: str
    arrays: Mapping[str, torch.Tensor]
    tags: tuple[str, ...] = ()
    description: str = ""
    columns: Mapping[str, Sequence[str]] = field(default_factory=dict)
    ranges: Columns = field(default_factory=dict)
    mock_of: Literal["schema", "columns"] = "schema"
    """What mock rows are drawn from: the schema alone, or, if the owner wants, each real column, shuffled."""

    def __post_init__(self) -> None:
        rows = {len(array) if array.dim() else -1 for array in self.arrays.values()}
        if len(rows) != 1 or -1 in rows:
            raise DataError(f"data set {self.name!r} has arrays of {sorted(rows)} rows", "give all the same number")

    @property
    def rows(self) -> int:
        """How many rows there are."""
        return len(next(iter(self.arrays.values())))

    @property
    def label(self) -> Label:
        """What everything made of it inherits."""
        return Label(frozenset({self.name}))

    def entry(self) -> Entry:
        """Return what the catalogue says of it."""
        arrays = {name: self._column(name, array) for name, array in self.arrays.items()}
        return Entry(self.name, self.tags, self.description, self.rows, arrays)

    def _column(self, name: str, array: torch.Tensor) -> Column:
        columns = tuple(self.columns.get(name, ()))
        ranges = {column: self.ranges[column] for column in columns if column in self.ranges}
        return Column(NAMES[array.dtype], tuple(array.shape), columns, ranges)

    def mock(self, array: str) -> torch.Tensor:
        """Return made-up rows in the layout of an array; they are drawn without a look at the real ones.

        With `mock_of="columns"` they are real values, each column shuffled on its own.
        """
        real = self.array(array)
        count = min(MOCK_ROWS, len(real))
        generator = torch.Generator().manual_seed(0)
        if self.mock_of == "columns":
            flat = real.reshape(len(real), -1)
            order = torch.rand(flat.shape).argsort(dim=0)[:count]
            return flat.gather(0, order).reshape(count, *real.shape[1:])
        shape = (count, *real.shape[1:])
        if not real.dtype.is_floating_point:
            return torch.randint(0, 2, shape, generator=generator).to(real.dtype)
        drawn = torch.randn(shape, generator=generator).to(real.dtype)
        for at, column in enumerate(self.columns.get(array, ())):
            if column in self.ranges:
                allowed = self.ranges[column]
                drawn[:, at].uniform_(allowed.low, allowed.high, generator=generator)
        return drawn

    def array(self, name: str) -> torch.Tensor:
        """Return one array. Raises NotFound for an unknown one."""
        if name not in self.arrays:
            raise NotFound(f"no array {name!r} in data set {self.name!r}", f"use one of {sorted(self.arrays)}")
        return self.arrays[name]


class Catalogue:
    """A worker's data sets by name."""

    def __init__(self, sets: Sequence[DataSet] = ()) -> None:
        self._sets = {each.name: each for each in sets}
        if len(self._sets) < len(sets):
            names = sorted(each.name for each in sets)
            raise ConfigurationError(f"data sets {names}, two of one name", "rename a file: it names its data set")

    @property
    def names(self) -> list[str]:
        """The names of all."""
        return sorted(self._sets)

    def entries(self, tags: Sequence[str] = ()) -> list[Entry]:
        """Return the data sets that have all these tags."""
        return [each.entry() for each in self._sets.values() if set(tags) <= set(each.tags)]

    def find(self, name: str) -> DataSet:
        """Return a data set. Raises NotFound for an unknown one."""
        if name not in self._sets:
            raise NotFound(f"no data set {name!r}", f"use one of {sorted(self._sets)}")
        return self._sets[name]


def from_table(
    name: str,
    table: Table,
    target: str | None,
    tags: tuple[str, ...],
    description: str = "",
    *,
    ranges: Columns = {},  # noqa: B006  (nobody writes into it)
    mock_of: Literal["schema", "columns"] = "schema",
) -> DataSet:
    """Return the data set of a table of numbers: "data" [rows, features] and, with a target, "target" [rows, 1]."""
    features = table if target is None else table.without(target)
    arrays = {"data": torch.from_numpy(features.values).float()}
    columns: dict[str, Sequence[str]] = {"data": features.columns}
    if target is not None:
        arrays["target"] = torch.from_numpy(table.target(target)).float().reshape(-1, 1)
        columns["target"] = (target,)
    return DataSet(name, arrays, tags, description, columns, ranges, mock_of)

"""What one client trains on, as named arrays of equal length."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any, TypeAlias

import numpy as np
import torch
from torch.utils.data import DataLoader, Dataset, IterableDataset

from shoal.core.errors import DataError, NoRows
from shoal.core.tree import Array, Tree

Columns: TypeAlias = Mapping[str, Array]
"""A batch, or all examples: arrays by name, the first axis counting examples. A pair is {"x": ..., "y": ...}."""


@dataclass(frozen=True, slots=True, eq=False)
class ClientData:
    """One client's examples; `assignment` and `seed` are those of the round it trains for.

    `correction` is added to every gradient of trainable arrays; none when it is empty. `rows` counts the examples.

    Raises NoRows without an example and DataError for arrays of unequal length.
    """

    name: str
    arrays: Columns
    assignment: str = ""
    seed: int = 0
    correction: Tree = field(default_factory=dict[str, Array])
    rows: int = field(init=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "rows", _check(self.name, self.arrays))

    def assigned(self, name: str, assignment: str, seed: int) -> "ClientData":
        """Return the same examples for another round, which need no second check."""
        other: ClientData = object.__new__(ClientData)
        values = (name, self.arrays, assignment, seed, self.correction, self.rows)
        for put, value in zip(_SLOTS, values, strict=True):
            put(other, value)
        return other


_SLOTS = [getattr(ClientData, name).__set__ for name in ClientData.__slots__]


def client_data(name: str, source: Any, assignment: str = "", seed: int = 0) -> ClientData:
    """Take a client's examples from an (x, y) pair, a dict of arrays, a torch Dataset or a DataLoader.

    Arrays may be numpy's or torch's. A Dataset or DataLoader gives pairs or dicts and is read once, into memory.
    """
    return ClientData(name, _arrays(name, source), assignment, seed)


def columns(batch: Any) -> dict[str, Array]:
    """Return a batch, given as an (x, y) pair or a dict, of arrays or tensors, as arrays by name."""
    if isinstance(batch, Mapping):
        return {str(name): array(value) for name, value in batch.items()}
    if isinstance(batch, tuple | list) and len(batch) == 2:
        return {"x": array(batch[0]), "y": array(batch[1])}
    raise DataError(f"a batch of type {type(batch).__name__}", "give a pair (x, y) or a dict of arrays")


def array(value: Any) -> Array:
    """Return an array or tensor as a numpy array of numbers."""
    if isinstance(value, torch.Tensor):
        if value.dtype is torch.bfloat16:
            raise DataError("data of dtype bfloat16", "convert it with .float()")
        return value.detach().cpu().numpy()
    result = np.asarray(value)
    if result.dtype.kind not in "fiub":
        raise DataError(f"data of dtype {result.dtype}", "give numbers or truth values")
    return result


def _arrays(name: str, source: Any) -> dict[str, Array]:
    if isinstance(source, DataLoader):
        return _gathered(name, source, np.concatenate)
    if isinstance(source, Dataset):
        items = source if isinstance(source, IterableDataset) else (source[i] for i in range(len(source)))  # type: ignore[arg-type]
        return _gathered(name, items, np.stack)
    return columns(source)


def _gathered(name: str, parts: Iterable[Any], join: Any) -> dict[str, Array]:
    rows = [columns(part) for part in parts]
    if not rows:
        raise NoRows(f"client {name!r} has no examples", "give it at least one, or leave it out")
    return {key: join([row[key] for row in rows]) for key in rows[0]}


def _check(name: str, arrays: Columns) -> int:
    scalar = next((key for key, value in arrays.items() if value.ndim == 0), None)
    if scalar is not None:
        raise DataError(f"client {name!r}: array {scalar!r} is a single number", "give one entry for every example")
    lengths = {key: len(value) for key, value in arrays.items()}
    if not lengths or 0 in lengths.values():
        raise NoRows(f"client {name!r} has no examples", "give it at least one, or leave it out")
    first, rows = next(iter(lengths.items()))
    for key, length in lengths.items():
        if length != rows:
            raise DataError(
                f"client {name!r}: array {first!r} has {rows} rows, {key!r} has {length}",
                "give every array one row for each example",
            )
    return rows

"""Rows of other libraries' tables and data sets, as (x, y) or, by a column that says whose they are, as a partition."""

from collections.abc import Iterable, Sequence
from typing import Any, TypeAlias

import numpy as np

from shoal.algorithms.registry import nearest
from shoal.core.errors import DataError, NoRows
from shoal.core.tree import Array
from shoal.data.partition import Partition, by_id

Pair: TypeAlias = tuple[Array, Array]


def from_pandas(frame: Any, target: str, *, features: Sequence[str] | None = None) -> Pair:
    """Return a DataFrame's columns as x float32 [rows, features] and y [rows, 1], integers as y int64 [rows].

    `features` are all other columns unless they are named. Raises DataError for a column that is not there or that
    holds no numbers.
    """
    y = _labels(_column(frame, target, list(frame.columns)))
    names = [str(name) for name in frame.columns if name != target] if features is None else list(features)
    x = [_numbers(name, _column(frame, name, list(frame.columns))) for name in names]
    return np.stack(x, axis=1).astype(np.float32), y


def by_owner(frame: Any, target: str, owner: str, *, features: Sequence[str] | None = None) -> Partition:
    """Return a DataFrame as a partition: the rows of each value of the column `owner`, under that name."""
    names = [str(name) for name in frame.columns if name not in (target, owner)] if features is None else features
    x, y = from_pandas(frame, target, features=names)
    return by_id(x, y, np.asarray(_column(frame, owner, list(frame.columns))))


def from_dataset(dataset: Any) -> Pair:
    """Return a torch Dataset of (x, y) pairs as two arrays, read once."""
    items = dataset if isinstance(dataset, Iterable) else (dataset[i] for i in range(len(dataset)))
    pairs = [(np.asarray(x), np.asarray(y)) for x, y in items]
    if not pairs:
        raise NoRows("a data set without rows", "give at least one")
    return np.stack([x for x, _ in pairs]), np.stack([y for _, y in pairs])


def from_huggingface(dataset: Any, x: str, y: str) -> Pair:
    """Return two columns of a Hugging Face Dataset as arrays. Raises DataError for a column that is not there."""
    for name in (x, y):
        _column(dataset, name, dataset.column_names)
    arrays = dataset.with_format("numpy")
    return np.asarray(arrays[x][:]), np.asarray(arrays[y][:])


def _column(table: Any, name: str, known: Sequence[str]) -> Any:
    if name not in known:
        raise DataError(f"no column {name!r}", f"use one of {', '.join(map(str, known))}{nearest(name, known)}")
    return table[name]


def _numbers(name: str, column: Any) -> Array:
    values = np.asarray(column)
    if values.dtype.kind not in "fiub":
        raise DataError(f"column {name!r} of {values.dtype}", "encode it as numbers, or name the features without it")
    return values


def _labels(column: Any) -> Array:
    values = _numbers("target", column)
    return values.astype(np.int64) if values.dtype.kind in "iub" else values.astype(np.float32)[:, None]

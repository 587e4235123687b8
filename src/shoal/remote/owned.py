"""An owner's files as data sets: rows from a CSV or NPZ file, and beside it what the owner says of them, in TOML.

`boston.toml` beside `boston.csv` may hold:

    description = "Houses of Boston"
    tags = ["#boston", "#housing"]
    target = "MEDV"
    mock = "schema"
    [columns.RAD]
    low = 1
    high = 24
"""

from pathlib import Path
from typing import Literal

import msgspec
import numpy as np
import torch

from shoal.core.errors import ConfigurationError, DataError, SchemaMismatch
from shoal.data import Table, read_csv
from shoal.remote.catalogue import Columns, DataSet, Range, from_table
from shoal.remote.frames import NAMES


class Said(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """What an owner says of a file; unknown keys are errors."""

    description: str = ""
    tags: tuple[str, ...] = ()
    target: str | None = None
    mock: Literal["schema", "columns"] = "schema"
    columns: dict[str, Range] = msgspec.field(default_factory=dict)


def read(path: Path, target: str | None = None) -> DataSet:
    """Return the data set of a file, named as the file is; `target` counts where the file beside names none.

    Raises DataError for a file that cannot be read, SchemaMismatch for values outside the range that is said of them,
    ConfigurationError for a TOML file with something else in it.
    """
    said = _said(path.with_suffix(".toml"))
    tags = said.tags or (f"#{path.stem}",)
    if path.suffix == ".npz":
        if said.target or said.columns:
            raise ConfigurationError(f"a target or columns for {path}", "name them for CSV files only")
        return DataSet(path.stem, _arrays(path), tags, said.description, mock_of=said.mock)
    table = read_csv(path, said.target)
    _check(path, table, said.columns)
    chosen = said.target or (target if target in table.columns else None)
    return from_table(path.stem, table, chosen, tags, said.description, ranges=said.columns, mock_of=said.mock)


def _said(path: Path) -> Said:
    if not path.exists():
        return Said()
    try:
        return msgspec.toml.decode(path.read_bytes(), type=Said)
    except (msgspec.MsgspecError, UnicodeDecodeError) as error:
        raise ConfigurationError(
            f"{path}: {error}", "use description, tags, target, mock, and [columns.NAME] with low and high"
        ) from error


def _check(path: Path, table: Table, ranges: Columns) -> None:
    for name, allowed in ranges.items():
        values = table.target(name)
        wrong = int((~((values >= allowed.low) & (values <= allowed.high))).sum())  # what is no number is wrong too
        if wrong:
            raise SchemaMismatch(
                f"{path}: {wrong} of {len(values)} rows have a {name!r} outside {allowed.low:g} to {allowed.high:g}",
                "correct these rows, or the range",
            )


def _arrays(path: Path) -> dict[str, torch.Tensor]:
    try:
        with np.load(path, allow_pickle=False) as file:
            arrays = {name: torch.from_numpy(file[name]) for name in file.files}
    except (OSError, ValueError, TypeError) as error:
        raise DataError(f"cannot read {path}: {error}", "save it with numpy.savez, as arrays of numbers") from error
    for name, array in arrays.items():
        if array.dtype not in NAMES:
            raise DataError(
                f"{path}: array {name!r} has dtype {array.dtype}", f"use one of {', '.join(NAMES.values())}"
            )
    if not arrays:
        raise DataError(f"{path} holds no array", "save at least one with numpy.savez")
    return arrays

"""Tables of numbers in CSV files: one header line of names, then one row a line."""

import csv
import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TypeAlias

import numpy as np
import numpy.typing as npt

from shoal.algorithms.registry import nearest
from shoal.core.errors import DataError, NoRows, NotNumeric

Floats: TypeAlias = npt.NDArray[np.float64]
Line: TypeAlias = tuple[int, list[str]]

SEPARATORS = (";", "\t", "|")
"""Signs that other programs put between cells; a table here has commas."""


@dataclass(frozen=True, slots=True, eq=False)
class Table:
    """Named columns of numbers: `values` [rows, columns], float64."""

    columns: tuple[str, ...]
    values: Floats

    def features(self, target: str) -> Floats:
        """Return every column but the target [rows, columns - 1]. Raises DataError for an unknown target."""
        return np.delete(self.values, self._index(target), axis=1)

    def target(self, target: str) -> Floats:
        """Return one column [rows]. Raises DataError for an unknown one."""
        return self.values[:, self._index(target)].copy()

    def without(self, column: str) -> "Table":
        """Return the table without one column. Raises DataError for an unknown one."""
        left = tuple(name for name in self.columns if name != column)
        return Table(left, self.features(column))

    def take(self, rows: npt.NDArray[np.int64]) -> "Table":
        """Return the table of these rows, in this order."""
        return Table(self.columns, self.values[rows])

    def _index(self, column: str) -> int:
        if column not in self.columns:
            hint = nearest(column, self.columns)
            raise DataError(f"no column {column!r}", f"use one of {', '.join(self.columns)}{hint}")
        return self.columns.index(column)


def read_csv(path: Path | str, target: str | None = None) -> Table:
    """Read a table; a first line of two counts, as in scikit-learn's files ("506,13,,,"), is skipped.

    Raises DataError when the file cannot be read, has no header, is ragged or lacks the column `target`; NotNumeric
    for a cell that is no finite number, by file, line and column; NoRows when nothing follows the header.
    """
    path = Path(path)
    lines = _lines(path)
    if lines and _is_counts(lines[0][1]):
        del lines[0]
    if not lines:
        raise NoRows(f"{path} is empty", "give a header line with the column names, then one row a line")
    columns = _header(path, *lines[0])
    if len(lines) == 1:
        raise NoRows(f"{path} has a header and no rows", "add at least one row")
    values = np.array([_row(path, line, columns) for line in lines[1:]], np.float64)
    table = Table(columns, values)
    if target is not None and target not in columns:
        hint = nearest(target, columns)
        raise DataError(f"{path} has no column {target!r}", f"use one of {', '.join(columns)}{hint}")
    return table


def write_csv(path: Path | str, table: Table) -> None:
    """Write a table so that `read_csv` gives the same bits back."""
    with Path(path).open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file)
        writer.writerow(table.columns)
        writer.writerows([repr(value) for value in row] for row in table.values.tolist())


def _lines(path: Path) -> list[Line]:
    try:
        with path.open(newline="", encoding="utf-8-sig") as file:
            return list(_filled(csv.reader(file, skipinitialspace=True)))
    except OSError as error:
        raise DataError(f"cannot read {path}: {error.strerror}", "check the path and its permissions") from error
    except (UnicodeDecodeError, csv.Error) as error:
        raise DataError(f"{path} is no CSV text: {error}", "save it as CSV in UTF-8") from error


def _filled(reader: Iterator[list[str]]) -> Iterator[Line]:
    # csv's own line number, because a quoted cell may span lines
    for row in reader:
        if any(cell.strip() for cell in row):
            yield reader.line_num, [cell.strip() for cell in row]  # type: ignore[attr-defined]


def _is_counts(row: Sequence[str]) -> bool:
    return len(row) > 2 and all(cell.isdigit() for cell in row[:2]) and not any(row[2:])


def _header(path: Path, line: int, row: Sequence[str]) -> tuple[str, ...]:
    if any(_number(cell) is not None for cell in row):
        raise DataError(f"{path} begins with numbers, line {line}: {','.join(row)[:60]}", "add a header line of names")
    repeated = sorted({name for name in row if row.count(name) > 1})
    other = next((sign for sign in SEPARATORS if len(row) == 1 and sign in row[0]), None)
    if other is not None:
        raise DataError(
            f"{path} line {line} has {other!r} between its names: {row[0][:60]!r}",
            "save it with commas between cells, and points in numbers",
        )
    if repeated or "" in row:
        raise DataError(f"{path} has the column names {list(row)}", "give every column its own name")
    return tuple(row)


def _row(path: Path, line: Line, columns: Sequence[str]) -> list[float]:
    number, cells = line
    if len(cells) != len(columns):
        raise DataError(
            f"{path} line {number} has {len(cells)} cells, the header {len(columns)}: {','.join(cells)[:60]!r}",
            "give each row one cell for each column",
        )
    return [_cell(path, number, column, cell) for column, cell in zip(columns, cells, strict=True)]


def _cell(path: Path, line: int, column: str, cell: str) -> float:
    value = _number(cell)
    if value is None or not math.isfinite(value):
        raise NotNumeric(
            f"{path} line {line}, column {column!r}: {cell!r}", "put a finite number there or drop the row"
        )
    return value


def _number(cell: str) -> float | None:
    try:
        return float(cell)
    except ValueError:
        return None

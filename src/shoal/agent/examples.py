"""What a device observed: examples in an SQLite file that never leaves it.

Every example is a row of its own, sealed if there is a key. Of each run of 1/holdout examples one, chosen by the
device's name, is held out: models are measured on it and never trained on it. Which one follows from the example's
number, so it is the same after every restart and whatever was removed meanwhile.
"""

import sqlite3
import threading
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from shoal.agent.sealed import Seal
from shoal.core.errors import ConfigurationError, DataError, WrongKey
from shoal.core.seeds import derive
from shoal.core.tree import Array, encode
from shoal.wire.codec import decode_tree

FILE = "examples.sqlite"

_SCHEMA = """
CREATE TABLE IF NOT EXISTS examples (
    number INTEGER PRIMARY KEY AUTOINCREMENT, at REAL NOT NULL, held INTEGER NOT NULL, body BLOB NOT NULL);
CREATE INDEX IF NOT EXISTS examples_at ON examples (at);
CREATE INDEX IF NOT EXISTS examples_held ON examples (held, number);
CREATE TABLE IF NOT EXISTS proof (sealed INTEGER NOT NULL, body BLOB NOT NULL);
"""
_PROOF = "the examples of this home"


@dataclass(frozen=True, slots=True)
class Retention:
    """How many examples stay, the newest ones, and for how many seconds (for ever without `age`)."""

    count: int = 10_000
    age: float | None = None

    def __post_init__(self) -> None:
        if self.count < 1 or (self.age is not None and not self.age > 0):
            raise ConfigurationError(f"retention of {self.count} examples for {self.age} s", "give positive numbers")


@dataclass(frozen=True, slots=True)
class Layout:
    """The shape and dtype of one example's arrays, by name."""

    rows: Mapping[str, tuple[tuple[int, ...], np.dtype[np.generic]]]

    @classmethod
    def like(cls, batch: Mapping[str, Array]) -> "Layout":
        """Return the layout of the rows of a batch."""
        return cls({name: (array.shape[1:], array.dtype) for name, array in batch.items()})

    def batch(self, given: Mapping[str, Array]) -> dict[str, Array]:
        """Return one example, or several stacked, as a batch in the layout's dtypes. Raises DataError."""
        if given.keys() != self.rows.keys():
            raise DataError(f"an example with {sorted(given)}", f"the task takes {sorted(self.rows)}")
        batch = {name: self.cast(name, array) for name, array in given.items()}
        lengths = {name: len(array) for name, array in batch.items()}
        if len(set(lengths.values())) != 1:
            raise DataError(f"examples with {lengths} rows", "give every array one row for each example")
        return batch

    def cast(self, name: str, array: Array) -> Array:
        """Return one row, or several stacked, as [rows, ...] in the layout's dtype. Raises DataError."""
        shape, dtype = self.rows[name]
        if not np.can_cast(array.dtype, dtype, "same_kind"):
            raise DataError(f"{name!r} of dtype {array.dtype}", f"the task takes {dtype}")
        if array.shape != shape and array.shape[1:] != shape:
            raise DataError(f"{name!r} of shape {array.shape}", f"one example has {shape}, several one axis more")
        rows = array.reshape((-1, *shape)).astype(dtype)
        if dtype.kind == "f" and not np.isfinite(rows).all():
            raise DataError(f"{name!r} holds NaN or infinity", "correct the example or leave it out")
        return rows


class ExampleStore:
    """The examples of one device; usable from several threads.

    `holdout` is the share that is held out, at most a half. `clock` tells seconds since 1970. Raises WrongKey when the
    file was sealed with another key, or with one where none is given, or the other way about.
    """

    def __init__(
        self,
        folder: Path,
        name: str,
        *,
        seal: Seal | None = None,
        holdout: float = 0.2,
        retention: Retention | None = None,
        clock: Callable[[], float] = time.time,
    ) -> None:
        if not 0 <= holdout <= 0.5:
            raise ConfigurationError(f"a holdout of {holdout:g}", "give a share from 0 to 0.5")
        self._every = round(1 / holdout) if holdout else 0
        self._seed = derive(0, name, "holdout")
        self._seal = seal or Seal()
        self._retention = retention or Retention()
        self._clock = clock
        self._lock = threading.RLock()
        self._read: dict[bool, tuple[tuple[int, int], dict[str, Array]]] = {}
        self._file = _opened(folder / FILE)
        self._prove()

    def _prove(self) -> None:
        found = self._file.execute("SELECT sealed, body FROM proof").fetchone()
        if found is None:
            sealed = self._seal.seal(_PROOF.encode(), _PROOF)
            with self._file:
                self._file.execute("INSERT INTO proof VALUES (?, ?)", (self._seal.encrypts, sealed))
        elif bool(found[0]) != self._seal.encrypts:
            self.close()
            how = "sealed, no key was given" if found[0] else "not sealed, a key was given"
            raise WrongKey(f"{_PROOF} are {how}", "open it as it was made, or give another home")
        else:
            try:
                self._seal.open(found[1], _PROOF)
            except WrongKey:
                self.close()
                raise

    def close(self) -> None:
        """Close the file."""
        with self._lock:
            self._file.close()

    def add(self, batch: Mapping[str, Array]) -> None:
        """Keep the rows of a batch, durable on return, and remove what retention does not allow any more."""
        now = self._clock()
        with self._lock, self._file:
            number = self.observed
            for index in range(len(next(iter(batch.values())))):
                number += 1
                body = encode({name: array[index] for name, array in batch.items()})
                self._file.execute(
                    "INSERT INTO examples VALUES (?, ?, ?, ?)",
                    (number, now, self._is_held(number), self._seal.seal(body, f"example {number}")),
                )
            self._remove(now)

    def _is_held(self, number: int) -> bool:
        if not self._every:
            return False
        block, place = divmod(number - 1, self._every)
        return place == derive(self._seed, block) % self._every

    def _remove(self, now: float) -> None:
        oldest = self.observed - self._retention.count
        self._file.execute("DELETE FROM examples WHERE number <= ?", (oldest,))
        if self._retention.age is not None:
            self._file.execute("DELETE FROM examples WHERE at < ?", (now - self._retention.age,))

    @property
    def observed(self) -> int:
        """How many examples were ever observed."""
        with self._lock:
            found = self._file.execute("SELECT seq FROM sqlite_sequence WHERE name = 'examples'").fetchone()
        return int(found[0]) if found else 0

    def count(self, *, held: bool) -> int:
        """Return how many examples there are that are held out, or that are not."""
        return self.mark(held=held)[1]

    def mark(self, *, held: bool) -> tuple[int, int]:
        """Return the number of the newest example and how many there are: another mark whenever there are others."""
        with self._lock:
            with self._file:
                self._remove(self._clock())
            query = "SELECT coalesce(max(number), 0), count(*) FROM examples WHERE held = ?"
            newest, count = self._file.execute(query, (held,)).fetchone()
        return newest, count

    def rows(self, *, held: bool) -> dict[str, Array]:
        """Return the examples that are held out, or those that are not, as a batch; {} when there are none."""
        with self._lock:
            mark = self.mark(held=held)
            if held not in self._read or self._read[held][0] != mark:
                self._read[held] = (mark, self._stacked(held))
            return self._read[held][1]

    def _stacked(self, held: bool) -> dict[str, Array]:
        found = self._file.execute("SELECT number, body FROM examples WHERE held = ? ORDER BY number", (held,))
        rows = [decode_tree(self._seal.open(body, f"example {number}")) for number, body in found]
        return {name: np.stack([row[name] for row in rows]) for name in (rows[0] if rows else ())}


def _opened(path: Path) -> sqlite3.Connection:
    path.touch(0o600)
    file = sqlite3.connect(path, check_same_thread=False)
    # what is removed is overwritten; full synchronous, so that an example that was observed stays
    file.execute("PRAGMA secure_delete = ON")
    file.execute("PRAGMA synchronous = FULL")
    file.executescript(_SCHEMA)
    return file

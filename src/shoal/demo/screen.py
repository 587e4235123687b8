"""What a person, or a program, sees of a run: one row a round, then the outcome."""

import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Protocol, TextIO

if TYPE_CHECKING:
    from shoal.core.types import ModelVersion

SCORE = "test MSE"
COLUMNS = ("round", "{score}", "training s", "network s", "up", "down")
WIDTHS = (7, 13, 12, 11, 12, 12)


@dataclass(frozen=True, slots=True)
class Row:
    """One round: its score if there is one, and what all owners spent on it together. Seconds and bytes."""

    round: int
    mse: float | None
    train_seconds: float
    network_seconds: float
    bytes_up: int
    bytes_down: int
    cpu_seconds: float
    version: int
    digest: str

    def cells(self) -> tuple[str, ...]:
        """Return the row as the table shows it."""
        score = "-" if self.mse is None else f"{self.mse:.3f}"
        seconds = (f"{self.train_seconds:.3f}", f"{self.network_seconds:.3f}")
        return (str(self.round), score, *seconds, amount(self.bytes_up), amount(self.bytes_down))


@dataclass(frozen=True, slots=True)
class Outcome:
    """How a demo ended: its error beside that of pooled training and of predicting the mean, and what it cost."""

    mse: float
    central_mse: float
    mean_mse: float
    rounds: int
    seconds: float
    cpu_seconds: float
    model_path: str
    digest: str
    final: bool = True


class Screen(Protocol):
    """Shows a run while it goes on."""

    def say(self, line: str) -> None:
        """Show one line of what is going on."""
        ...

    def row(self, row: Row) -> None:
        """Show a round that has just ended."""
        ...

    def end(self) -> None:
        """Show that no round will follow."""
        ...

    def outcome(self, outcome: Outcome, lines: Sequence[str]) -> None:
        """Show the result; `lines` are the words for it."""
        ...


def row(version: "ModelVersion", mse: float | None) -> Row:
    """Return the row of the round that made a version."""
    costs = version.costs
    return Row(
        version.number,
        mse,
        costs.train_seconds,
        costs.network_seconds,
        costs.bytes_up,
        costs.bytes_down,
        costs.cpu_seconds,
        version.number,
        version.digest,
    )


def amount(size: int) -> str:
    """Return a number of bytes in a unit that keeps it short."""
    scaled, units = float(size), ["B", "kB", "MB", "GB", "TB"]
    while scaled >= 1000 and len(units) > 1:
        scaled /= 1000
        units.pop(0)
    return f"{scaled:.0f} {units[0]}" if units[0] == "B" else f"{scaled:.1f} {units[0]}"


def titles(score: str) -> tuple[str, ...]:
    """Return the heads of the table's columns, the second being the name of the score."""
    return tuple(column.format(score=score) for column in COLUMNS)


class PlainScreen:
    """Lines of text, for files, pipes and terminals that cannot move their cursor."""

    def __init__(self, stream: TextIO, score: str) -> None:
        self._stream = stream
        self._score = score
        self._headed = False

    def say(self, line: str) -> None:
        """Print the line."""
        self._print(line)

    def row(self, row: Row) -> None:
        """Print the row; before the first one, the heads of the columns."""
        if not self._headed:
            self._print(_aligned(titles(self._score)))
            self._headed = True
        self._print(_aligned(row.cells()))

    def end(self) -> None:
        """Leave the rows as they stand."""

    def outcome(self, outcome: Outcome, lines: Sequence[str]) -> None:
        """Print the words."""
        del outcome
        self._print("", *lines)

    def _print(self, *lines: str) -> None:
        self._stream.write("".join(f"{line}\n" for line in lines))
        self._stream.flush()


class JsonScreen:
    """One JSON object a line: a round each, then the outcome. What is said goes to the other stream."""

    def __init__(self, stream: TextIO, said: TextIO) -> None:
        self._stream = stream
        self._said = said

    def say(self, line: str) -> None:
        """Print the line beside the objects."""
        self._said.write(f"{line}\n")
        self._said.flush()

    def row(self, row: Row) -> None:
        """Print the row as an object."""
        self._print(asdict(row))

    def end(self) -> None:
        """Leave the rows as they stand."""

    def outcome(self, outcome: Outcome, lines: Sequence[str]) -> None:
        """Print the outcome as an object."""
        del lines
        self._print(asdict(outcome))

    def _print(self, value: dict[str, object]) -> None:
        self._stream.write(json.dumps(value) + "\n")
        self._stream.flush()


def _aligned(cells: Sequence[str]) -> str:
    return "".join(cell.rjust(width) for cell, width in zip(cells, WIDTHS, strict=True))

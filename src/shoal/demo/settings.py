"""What the demo trains, and how."""

from dataclasses import dataclass
from pathlib import Path

NAMES = ("bob", "alice", "carol", "dave", "eve")


@dataclass(frozen=True, slots=True)
class Settings:
    """`data` is a CSV file with the column `target` to predict; without them, Boston Housing and its MEDV."""

    owners: int = 2
    rounds: int = 100
    seed: int = 1
    shuffle: bool = True
    lr: float = 1e-3
    batch_size: int = 8
    local_epochs: int = 1
    data: Path | None = None
    target: str | None = None

    @property
    def dataset(self) -> str:
        """The name of what is trained on, for files and tasks."""
        return "boston" if self.data is None else self.data.stem

    @property
    def column(self) -> str:
        """The column to predict."""
        return self.target or "MEDV"

    @property
    def names(self) -> tuple[str, ...]:
        """What the owners are called."""
        further = (f"owner{number}" for number in range(len(NAMES) + 1, self.owners + 1))
        return (*NAMES[: self.owners], *further)

"""Event files for TensorBoard (extra `tensorboard`; torch writes them)."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from shoal.core.optional import installed
from shoal.tracking.tracker import Status, Value


class TensorBoard:
    """Writes a run below `folder`: a curve for every number, and what the run is made of as a text.

    Raises ConfigurationError, when a run begins, without tensorboard or torch.
    """

    def __init__(self, folder: Path | str) -> None:
        self._folder = Path(folder)
        self._writer: Any = None

    def begin(self, name: str, params: Mapping[str, Value]) -> None:
        """Open the file."""
        installed("tensorboard", "'shoal[tensorboard]'")
        self._writer = installed("torch.utils.tensorboard").SummaryWriter(str(self._folder))
        rows = "".join(f"| {_text(key)} | {_text(value)} |\n" for key, value in params.items())
        self._writer.add_text(name, f"| what | value |\n|---|---|\n{rows}")

    def log(self, step: int, metrics: Mapping[str, float]) -> None:
        """Write a round's numbers; they can be seen at once."""
        for name, value in metrics.items():
            self._writer.add_scalar(name, value, step)
        self._writer.flush()

    def end(self, status: Status) -> None:
        """Close the file."""
        self._writer.add_text("status", status)
        self._writer.close()


def _text(value: Value) -> str:
    return str(value).replace("|", "\\|").replace("\n", " ")

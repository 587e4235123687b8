"""What was spent of what an owner granted: durable before it counts as spent, so that no restart gives it back."""

import json
from collections.abc import Callable
from pathlib import Path
from threading import Lock

from shoal.core.errors import CorruptStore
from shoal.store.durable import write_durably


class Ledger:
    """Sums by key; without a path they are kept in memory only. One process writes a file."""

    def __init__(self, path: Path | None = None) -> None:
        self._path = path
        self._lock = Lock()
        self._spent = {} if path is None or not path.exists() else _read(path)

    def spent(self, *key: str) -> float:
        """Return what was spent under a key."""
        return self._spent.get("/".join(key), 0.0)

    def spend(self, amount: float, most: float, refusal: Callable[[float], Exception], *key: str) -> None:
        """Add to what was spent under a key; raise what `refusal` makes of the sum where that would be over `most`."""
        with self._lock:
            before = self.spent(*key)
            if before + amount > most * (1 + 1e-9):
                raise refusal(before)
            spent = {**self._spent, "/".join(key): before + amount}
            if self._path is not None:
                self._path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
                write_durably(self._path, [json.dumps(spent, sort_keys=True).encode()], 0o600)
            self._spent = spent


def _read(path: Path) -> dict[str, float]:
    try:
        found = json.loads(path.read_bytes())
        return {str(key): float(value) for key, value in found.items()}
    except (ValueError, AttributeError, TypeError) as error:
        raise CorruptStore(
            f"{path} is no ledger", "restore it; without it spent budgets would be given anew"
        ) from error

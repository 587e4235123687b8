"""When devices last worked for other tasks, for tasks that leave time in between."""

from shoal.rounds.events import CheckedIn
from shoal.server.storage import Storage
from shoal.server.tasks import Tasks

LOOKED_AT = 100_000
"""Events at the end of each task's stream in which work is looked for, once, when a task first asks."""


class Apart:
    """Remembers who got work of which task when; it is read from the streams when a task first asks for it."""

    def __init__(self, tasks: Tasks, storage: Storage) -> None:
        self._tasks = tasks
        self._storage = storage
        self._last: dict[str, dict[str, float]] | None = None

    def elsewhere(self, device: str, task: str, separation: float) -> float | None:
        """Return when a device last got work of another task, None if never or if the task does not ask."""
        if not separation:
            return None
        if self._last is None:
            self._last = {}
            for stream in self._tasks:
                self._read(stream)
        return max((at for name, at in self._last.get(device, {}).items() if name != task), default=None)

    def _read(self, stream: str) -> None:
        first = max(0, self._tasks[stream].position - LOOKED_AT)
        # of check-ins only those that got work are events
        for _, record in self._storage.store.events(stream, first):
            if isinstance(record.event, CheckedIn):
                self.worked(record.event.device, stream, record.at)

    def worked(self, device: str, task: str, now: float) -> None:
        """Note that a device gets work."""
        if self._last is not None:
            self._last.setdefault(device, {})[task] = now

"""Which of several tasks a device is offered first: the one that was served least recently."""

from collections.abc import Iterable
from dataclasses import dataclass, field


@dataclass(slots=True)
class Turns:
    """Remembers, in order, which task got which device.

    A device is shared fairly first: a task that it worked for less recently comes before the others. Among tasks that
    are equal in this, the one that got any device less recently does. After a restart all start anew.
    """

    number: int = 0
    overall: dict[str, int] = field(default_factory=dict[str, int])
    by_device: dict[str, dict[str, int]] = field(default_factory=dict[str, dict[str, int]])

    def order(self, device: str, tasks: Iterable[str]) -> list[str]:
        """Return tasks in the order in which they are to be offered; those that are equal stay as they are."""
        own = self.by_device.get(device, {})
        return sorted(tasks, key=lambda task: (own.get(task, 0), self.overall.get(task, 0)))

    def served(self, device: str, task: str) -> None:
        """Note that a device works for a task."""
        self.number += 1
        self.overall[task] = self.number
        self.by_device.setdefault(device, {})[task] = self.number

    def forget(self, tasks: Iterable[str]) -> None:
        """Drop what is known about tasks that are over."""
        for task in set(tasks) & self.overall.keys():
            del self.overall[task]
            for own in self.by_device.values():
                own.pop(task, None)
        self.by_device = {device: own for device, own in self.by_device.items() if own}

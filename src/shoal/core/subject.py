"""What an evaluation measures."""

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Subject:
    """A version of a model: the id and the name of the task that made it, and the version's digest."""

    task: str
    name: str
    version: str

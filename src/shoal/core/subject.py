"""What an evaluation measures."""

from dataclasses import dataclass

AGAINST = "against_"
"""What the columns of an evaluation begin with that are about the other version."""


@dataclass(frozen=True, slots=True)
class Subject:
    """A version of a model: the id and the name of the task that made it, and the version's digest.

    `against` is the digest of another version that is measured on the same rows, if any.
    """

    task: str
    name: str
    version: str
    against: str = ""

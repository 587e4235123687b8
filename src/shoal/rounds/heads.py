"""Which versions of a task devices serve: the serving head, a candidate on trial, and what became of others."""

from dataclasses import dataclass, field
from typing import Literal, TypeAlias

from shoal.core.cohort import Cohort
from shoal.core.serving import Canary

GUARD = "guard"
"""Who promotes and rolls back where no person does."""

What: TypeAlias = Literal["canary", "guard", "measured", "promoted", "rolled back", "rewound", "refused by a device"]


@dataclass(frozen=True, slots=True)
class Step:
    """One thing that happened to a version: when (seconds since 1970), what, who did it and why."""

    at: float
    what: What
    number: int
    by: str
    reason: str = ""


@dataclass(frozen=True, slots=True)
class Note:
    """What a person wrote about a version."""

    at: float
    number: int
    by: str
    text: str


@dataclass(frozen=True, slots=True)
class Refusal:
    """A device found that a version does not work there, and kept the one that it had."""

    number: int
    device: str
    reason: str


@dataclass(frozen=True, slots=True)
class Measured:
    """What the guard's evaluation found; `reason` says why there is no result, if there is none."""

    candidate: float = 0.0
    head: float = 0.0
    rows: int = 0
    reason: str = ""


@dataclass(slots=True)
class Candidate:
    """A version on trial since `since`; `guard` is the id of the evaluation that measures it, once there is one."""

    number: int
    canary: Canary
    since: float
    guard: str = ""
    measured: Measured | None = None

    def cohort(self, task: str) -> Cohort:
        """Return the devices that serve it."""
        return Cohort(f"{task}/{self.number}", self.canary.fraction)


@dataclass(slots=True)
class Heads:
    """The serving head of a task, and the training head apart from it.

    `training` is the version that the next round starts from, None while that is the newest one.

    `chosen` is the version that all serve, None while that is the newest one. `former` are those that were chosen
    before, oldest first; `followed` is from which version on the newest is served. While `held`, nothing is promoted
    but by a person. `barred` were rolled back. `judged` is the newest version that was on trial.
    """

    training: int | None = None
    chosen: int | None = None
    former: list[int] = field(default_factory=list[int])
    followed: int = 0
    held: bool = False
    barred: list[int] = field(default_factory=list[int])
    candidate: Candidate | None = None
    judged: int = 0
    steps: list[Step] = field(default_factory=list[Step])
    notes: list[Note] = field(default_factory=list[Note])
    refusals: list[Refusal] = field(default_factory=list[Refusal])

"""What a device is given or told: its assignment, and the answers that depend on nothing else."""

import hashlib
from collections.abc import Sequence

from shoal.core.receipt import Receipt
from shoal.core.seeds import derive, deriving
from shoal.core.task import TaskSpec
from shoal.core.types import Assignment, ModelVersion
from shoal.rounds.effects import Accept, Refuse
from shoal.rounds.events import Reported


def assignment_of(
    task: str, spec: TaskSpec, place: tuple[int, int, str], base: ModelVersion, deadline: float, turn: int = 0
) -> Assignment:
    """Return a device's part in a round, which begins from `base`: `place` is (round, attempt, device).

    `turn` counts the parts that the device had before in a buffered round. Each has a seed of its own: the same work
    twice would count the same change twice.
    """
    number, attempt, device = place
    turns = (turn,) if turn else ()
    return Assignment(
        id=_identity(f"{task}/{number}/{attempt}/{device}" + (f"/{turn}" if turn else "")),
        task=task,
        round=number,
        attempt=attempt,
        device=device,
        version=base.digest,
        seed=derive(spec.seed, number, device, *turns),
        deadline=deadline,
        checkpoint="" if spec.local.rule is None else base.checkpoint,
    )


def identities(task: str, seed: int, number: int, attempt: int, devices: Sequence[str]) -> list[tuple[str, int]]:
    """Return the id and the seed of the assignment of each device of a round."""
    start, seeded = f"{task}/{number}/{attempt}/", deriving(seed, number)
    return [(_identity(start + device), seeded(device)) for device in devices]


def _identity(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()[:24]


def repeated(given: Receipt, event: Reported) -> Accept | Refuse:
    """Answer a report of an assignment that has its receipt: the same one, unless the update is another."""
    if given.digest == event.digest:
        return Accept(given)
    problem = f"assignment {event.assignment} was reported with digest {given.digest}, not {event.digest}"
    return Refuse(event.assignment, "conflict", problem, "keep the receipt of the first report", given)


def gone(assignment: str, number: int) -> Refuse:
    """Answer a message about an assignment that is not open."""
    problem = f"assignment {assignment} has no place in round {number}"
    return Refuse(assignment, "gone", problem, "drop it and check in again")

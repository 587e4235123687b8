"""A task's state from its stream of events."""

from collections.abc import Iterable

from shoal.core.errors import CorruptStore
from shoal.rounds.events import Published, Recorded
from shoal.rounds.state import TaskState


def replay(records: Iterable[Recorded], state: TaskState | None = None) -> TaskState:
    """Return the state that the events lead to, from `state` (a snapshot) or from the first event on.

    Raises CorruptStore when there is no snapshot and the stream does not begin with Published.
    """
    for record in records:
        if state is not None:
            state.handle(record.event, record.at)
        elif isinstance(record.event, Published):
            state = TaskState.begin(record.event, record.at)
        else:
            raise CorruptStore(
                f"a stream begins with {type(record.event).__name__}, not Published",
                "restore the home from a backup",
            )
    if state is None:
        raise CorruptStore("a task's stream is empty", "restore the home from a backup")
    return state

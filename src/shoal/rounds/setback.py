"""A coordinator's clock that was set back in the middle of a round.

Forward needs no care: deadlines and leases are over, as they would be after a night without power. Backward, a round
would last longer by as much as the clock was moved. So its time is moved along: it ends at most one deadline after the
first moment at which anything happens to it on the new clock.
"""

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from shoal.rounds.state import TaskState


def set_back(state: "TaskState", now: float) -> bool:
    """Whether `now` lies before the beginning of the round in progress."""
    timed = state.paused is None and not state.phase.over
    return timed and state.opened is not None and now < state.opened


def rebase(state: "TaskState", now: float) -> None:
    """Let a round that a clock was set back behind begin now, and the leases in it as long after that as before."""
    if state.opened is None or not set_back(state, now):
        return
    state.roster.postpone(now - state.opened)
    state.opened = now
    state.changes += 1

"""What an array of a model is for, which decides what may be done to it."""

from enum import StrEnum


class Role(StrEnum):
    """The role of one array.

    Server optimizers, clipping and noise touch *trainable* arrays only. *Buffers* (running statistics) take the
    plain weighted mean and *counters* (steps seen) the maximum: a server optimizer applied to a running variance
    makes it negative. *Frozen* arrays are fixed for the task and *local* ones belong to a device; neither travels
    in an update.
    """

    TRAINABLE = "trainable"
    BUFFER = "buffer"
    COUNTER = "counter"
    FROZEN = "frozen"
    LOCAL = "local"

    @property
    def travels(self) -> bool:
        """Whether arrays of this role are part of a model version and of an update."""
        return self in (Role.TRAINABLE, Role.BUFFER, Role.COUNTER)

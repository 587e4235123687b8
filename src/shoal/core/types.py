"""The nouns of the protocol. Values only: no I/O, no clock, no global state."""

from collections.abc import Mapping
from dataclasses import dataclass, field

from shoal.core import html
from shoal.core.tree import Tree
from shoal.core.value import value


@value
class Assignment:
    """One device's lease on a round: train from `version`, report before `deadline`.

    `version` is the digest of the model to start from, so that a late download can never bring the next one.
    `checkpoint` is that of what belongs to the version beside its arrays, for tasks with a rule whose trees devices
    share; "" when there is nothing yet.
    """

    id: str
    task: str
    round: int
    attempt: int
    device: str
    version: str
    seed: int
    deadline: float
    checkpoint: str = ""


@dataclass(frozen=True, slots=True)
class Update:
    """What a device sends back: its change to the model, and how much data stands behind it.

    `weight` counts units of 2**-16 (`core.task.weight_units`). `extra` holds further trees by name.
    """

    assignment: str
    delta: Tree
    weight: int
    metrics: Mapping[str, float] = field(default_factory=dict[str, float])
    extra: Mapping[str, Tree] = field(default_factory=dict[str, Tree])

    @property
    def trees(self) -> dict[str, Tree]:
        """Return every tree of the update: `delta` and the extra ones."""
        return {"delta": self.delta, **self.extra}


@dataclass(frozen=True, slots=True)
class Costs:
    """What a device spent since its last report, measured where it was spent. Seconds and socket bytes."""

    train_seconds: float = 0.0
    network_seconds: float = 0.0
    cpu_seconds: float = 0.0
    bytes_up: int = 0
    bytes_down: int = 0

    def __add__(self, other: "Costs") -> "Costs":
        return Costs(
            self.train_seconds + other.train_seconds,
            self.network_seconds + other.network_seconds,
            self.cpu_seconds + other.cpu_seconds,
            self.bytes_up + other.bytes_up,
            self.bytes_down + other.bytes_down,
        )


@dataclass(frozen=True, slots=True)
class ModelVersion:
    """One version of the model: its number, digest, parent, and how it came to be.

    `checkpoint` is the digest of the server optimizer's state after this version. `metrics` are the weighted
    means of what devices measured, `costs` the sums of what they spent, `reports` how many updates it sums.
    """

    number: int
    digest: str
    parent: str
    created: float
    checkpoint: str = ""
    reports: int = 0
    metrics: Mapping[str, float] = field(default_factory=dict[str, float])
    costs: Costs = Costs()

    def _repr_html_(self) -> str:
        told = {
            "digest": self.digest,
            "parent": html.short(self.parent),
            "reports": self.reports,
            **self.metrics,
            "training": f"{self.costs.train_seconds:.3g} s" if self.reports else None,
            "sent": f"{self.costs.bytes_up:,} bytes up, {self.costs.bytes_down:,} down" if self.reports else None,
        }
        return html.facts(f"version {self.number}", told)

"""How a device is set up, and what it tells about itself."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal, TypeAlias

from shoal.agent.conditions import Probe, SystemProbe
from shoal.agent.examples import Retention
from shoal.agent.policy import Policy

Which: TypeAlias = Literal["global", "personal"]

PROBE_SECONDS = 1.0
"""How often conditions are looked at: at most this often in training, and this often while they do not hold."""


@dataclass(frozen=True, slots=True)
class DeviceSettings:
    """How a device keeps and uses its examples.

    `holdout` is the share that is held out, `key` (16, 24 or 32 bytes) seals by AES-GCM what is kept,
    `policy` says what the device's user lets leave: by default updates, and metrics in a mean over several devices,
    which tell no more than those that go with an update. `columns` names the columns of the examples' arrays, for
    statistics. `ca` names further certificates to trust, `probe` tells about the device.
    """

    holdout: float = 0.2
    retention: Retention = Retention()
    key: bytes | None = None
    policy: Policy = Policy(statistics=False, versions=False)
    columns: Mapping[str, tuple[str, ...]] = field(default_factory=dict[str, tuple[str, ...]])
    ca: Path | str | None = None
    probe: Probe = SystemProbe()
    probe_seconds: float = PROBE_SECONDS


@dataclass(frozen=True, slots=True)
class DeviceStatus:
    """Where a device stands. Losses are those on its held-out examples, None where there is no such model or example.

    `version` is the number of the version that is served here, None before there is one; `refused` says why the
    one that should be is not; `pending` counts updates that have no
    receipt yet, `released` those that were made; `waiting_for` says which conditions do not hold, `problem` what ended
    the schedule or keeps it from the coordinator.
    """

    name: str
    url: str
    examples: int
    held_out: int
    version: int | None
    serving: Which
    global_loss: float | None
    personal_loss: float | None
    pending: int
    released: int
    running: bool
    waiting_for: tuple[str, ...] = ()
    problem: str = ""
    refused: str = ""


@dataclass(frozen=True, slots=True)
class Personalised:
    """What a call of `personalise` did.

    `before` is the loss of the model that served, `after` that of the new personal one, both on held-out examples and
    None without any; `kept` whether the new one stays, which it does not when it is worse than the personal one before.
    """

    before: float | None
    after: float | None
    kept: bool

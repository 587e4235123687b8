"""When a device may work: judged on the device, from what its system tells. Nothing of it is sent anywhere."""

import os
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import TypeAlias

from shoal.core.errors import ConfigurationError

IDLE_LOAD = 0.5
"""A device is idle when fewer than this many processes per processor wanted to run in the last minute."""

METERED = ("wwan", "ppp", "rmnet", "usb")
"""How the names of network interfaces begin that somebody may pay for by the byte."""


@dataclass(frozen=True, slots=True)
class Readings:
    """What a device can tell about itself; None where it cannot. `battery` is the charge from 0 to 1."""

    charging: bool | None = None
    battery: float | None = None
    idle: bool | None = None
    unmetered: bool | None = None


Probe: TypeAlias = Callable[[], Readings]


@dataclass(frozen=True, slots=True)
class Conditions:
    """What must hold for a device to work on its schedule, all of the time: work stops at once when one ends.

    `min_examples` counts those that are not held out, `battery` is the least charge from 0 to 1. What a device cannot
    tell does not hold.
    """

    min_examples: int = 1
    charging: bool = False
    idle: bool = False
    unmetered: bool = False
    battery: float = 0.0

    def __post_init__(self) -> None:
        if self.min_examples < 1 or not 0 <= self.battery <= 1:
            raise ConfigurationError(
                f"conditions with min_examples={self.min_examples}, battery={self.battery:g}",
                "give at least 1 example, and a charge from 0 to 1",
            )

    def unmet(self, readings: Readings, examples: int) -> tuple[str, ...]:
        """Return what does not hold, in words; nothing when the device may work."""
        return tuple(self._unmet(readings, examples))

    def _unmet(self, readings: Readings, examples: int) -> Iterator[str]:
        if examples < self.min_examples:
            yield f"{examples} examples of {self.min_examples}"
        asked = {"charging": self.charging, "idle": self.idle, "unmetered": self.unmetered}
        told = {"charging": readings.charging, "idle": readings.idle, "unmetered": readings.unmetered}
        for name in (name for name, wanted in asked.items() if wanted and not told[name]):
            yield f"not {name}" if told[name] is False else f"cannot tell whether {name}"
        if self.battery > (readings.battery or 0.0):
            charge = "an unknown charge" if readings.battery is None else f"a charge of {readings.battery:.0%}"
            yield f"{charge}, below {self.battery:.0%}"


@dataclass(frozen=True, slots=True)
class SystemProbe:
    """Reads Linux's /sys and /proc (under `root`), elsewhere the battery by psutil where that is installed.

    A machine without a battery counts as charging, with a full one.
    """

    root: Path = Path("/")

    def __call__(self) -> Readings:
        """Return the readings of this moment."""
        charging, battery = self._power()
        return Readings(charging, battery, self._idle(), self._unmetered())

    def _power(self) -> tuple[bool | None, float | None]:
        folder = self.root / "sys/class/power_supply"
        if not folder.is_dir():
            return _psutil_power()
        supplies = list(folder.iterdir())
        batteries = [s for s in supplies if _text(s / "type") == "Battery" and _text(s / "scope") != "Device"]
        if not batteries:
            return True, 1.0
        online = any(_text(s / "online") == "1" for s in supplies)
        status = {_text(s / "status") for s in batteries}
        levels = [int(level) / 100 for s in batteries if (level := _text(s / "capacity")).isdecimal()]
        return online or bool(status & {"Charging", "Full"}), min(levels, default=None)

    def _idle(self) -> bool | None:
        load = _text(self.root / "proc/loadavg").split()
        return float(load[0]) < IDLE_LOAD * (os.cpu_count() or 1) if load else None

    def _unmetered(self) -> bool | None:
        routes = [line.split() for line in _text(self.root / "proc/net/route").splitlines()[1:]]
        default = [route[0] for route in routes if len(route) > 1 and route[1] == "00000000"]
        return not any(name.startswith(METERED) for name in default) if default else None


def _text(path: Path) -> str:
    try:
        return path.read_text().strip()
    except OSError:
        return ""


def _psutil_power() -> tuple[bool | None, float | None]:
    if find_spec("psutil") is None:
        return None, None
    import psutil

    battery = psutil.sensors_battery()
    return (True, 1.0) if battery is None else (battery.power_plugged, battery.percent / 100)

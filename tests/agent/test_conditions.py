from pathlib import Path

import pytest

from shoal.agent.conditions import Conditions, Readings, SystemProbe
from shoal.core.errors import ConfigurationError

GOOD = Readings(charging=True, battery=0.9, idle=True, unmetered=True)
ALL = Conditions(min_examples=5, charging=True, idle=True, unmetered=True, battery=0.5)


def test_all_hold():
    assert ALL.unmet(GOOD, 5) == ()
    assert Conditions().unmet(Readings(), 1) == ()


@pytest.mark.parametrize(
    ("readings", "examples", "reason"),
    [
        (GOOD, 4, "4 examples of 5"),
        (Readings(False, 0.9, True, True), 5, "not charging"),
        (Readings(True, 0.9, False, True), 5, "not idle"),
        (Readings(True, 0.9, True, False), 5, "not unmetered"),
        (Readings(True, 0.4, True, True), 5, "a charge of 40%, below 50%"),
        (Readings(None, 0.9, True, True), 5, "cannot tell whether charging"),
        (Readings(True, None, True, True), 5, "an unknown charge, below 50%"),
    ],
)
def test_what_does_not_hold_is_said(readings: Readings, examples: int, reason: str):
    assert ALL.unmet(readings, examples) == (reason,)


@pytest.mark.parametrize("wrong", [{"min_examples": 0}, {"battery": 1.5}])
def test_conditions_that_cannot_be_are_refused(wrong):
    with pytest.raises(ConfigurationError):
        Conditions(**wrong)


def write(root: Path, files: dict[str, str]) -> SystemProbe:
    for name, text in files.items():
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(f"{text}\n")
    return SystemProbe(root)


BATTERY = {"sys/class/power_supply/BAT0/type": "Battery", "sys/class/power_supply/BAT0/capacity": "35"}
ROUTES = "Iface\tDestination\tGateway\n{0}\t00000000\t0101A8C0\n{0}\t0001A8C0\t00000000"


def test_a_laptop_on_its_battery(tmp_path: Path):
    probe = write(
        tmp_path,
        {
            **BATTERY,
            "sys/class/power_supply/BAT0/status": "Discharging",
            "sys/class/power_supply/AC/online": "0",
            "proc/loadavg": "9000.0 1 1 1/1 1",
            "proc/net/route": ROUTES.format("wwan0"),
        },
    )
    assert probe() == Readings(charging=False, battery=0.35, idle=False, unmetered=False)


def test_a_laptop_that_charges(tmp_path: Path):
    probe = write(
        tmp_path,
        {
            **BATTERY,
            "sys/class/power_supply/BAT0/status": "Charging",
            "sys/class/power_supply/mouse/type": "Battery",
            "sys/class/power_supply/mouse/scope": "Device",
            "sys/class/power_supply/mouse/capacity": "3",
            "proc/loadavg": "0.01 1 1 1/1 1",
            "proc/net/route": ROUTES.format("wlan0"),
        },
    )
    assert probe() == Readings(charging=True, battery=0.35, idle=True, unmetered=True)


def test_a_machine_without_battery_and_one_that_tells_nothing(tmp_path: Path):
    (tmp_path / "sys/class/power_supply").mkdir(parents=True)
    assert SystemProbe(tmp_path)() == Readings(charging=True, battery=1.0)


def test_the_system_at_hand_can_be_read():
    readings = SystemProbe()()
    assert readings.battery is None or 0 <= readings.battery <= 1

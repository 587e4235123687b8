"""What a coordinator can carry, part by part. Every part is bounded, and talks to this machine only.

    python benchmarks/coordinator.py --json
    python benchmarks/coordinator.py checkins fold --short

Each part says in its own file how its figures are measured: CPU seconds are those of the operating system's accounting,
of the coordinator's process where it has one, else of this one. `--short` takes a thousandth of the load or so: it
shows that a part works, its figures say little.
"""

import argparse
import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass, fields

import checkins
import day
import folding
import reports
import restarts
import waiting


@dataclass(frozen=True)
class Size:
    """How much of everything there is; each part says in its file what it does with it."""

    day_devices: int = 1_000_000
    connections: int = 500
    calls: int = 40_000
    reports: int = 5_000
    reporters: int = 3_000
    longpolls: int = 10_000
    restart_tasks: int = 100
    restart_events: int = 100_000
    restarts: int = 4
    fold_references: int = 10_000
    fold_blobs: int = 50
    fold_elements: int = 1_400_000


SHORT = Size(
    day_devices=2000,
    connections=5,
    calls=50,
    reports=64,
    reporters=10,
    longpolls=20,
    restart_tasks=2,
    restart_events=1100,
    restarts=1,
    fold_references=20,
    fold_blobs=5,
    fold_elements=10_000,
)

Part = Callable[[Size], Mapping[str, float]]
PARTS: dict[str, Part] = {
    "checkins": lambda size: checkins.figures(size.connections, size.calls),
    "reports": lambda size: reports.figures(size.reports, size.reporters),
    "fold": lambda size: folding.figures(size.fold_references, size.fold_blobs, size.fold_elements),
    "longpolls": lambda size: waiting.figures(size.longpolls),
    "restarts": lambda size: restarts.figures(size.restart_tasks, size.restart_events, size.restarts),
    "virtual_day": lambda size: day.figures(size.day_devices),
}


def main() -> None:
    """Run the parts that are asked for."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("parts", nargs="*", choices=[[], *PARTS], help="all parts, if none is named")
    for one in fields(Size):
        parser.add_argument(f"--{one.name.replace('_', '-')}", type=int, default=None, metavar="N")
    parser.add_argument("--short", action="store_true", help="a small load")
    parser.add_argument("--json", action="store_true", help="print one line of JSON")
    asked = parser.parse_args()
    base = SHORT if asked.short else Size()
    given = {one.name: getattr(asked, one.name) or getattr(base, one.name) for one in fields(Size)}
    figures = {key: value for part in asked.parts or PARTS for key, value in PARTS[part](Size(**given)).items()}
    if asked.json:
        print(json.dumps(figures))
    else:
        print(*(f"{key:<28} {_shown(value):>12}" for key, value in figures.items()), sep="\n")


def _shown(value: float) -> str:
    return f"{value:,}" if isinstance(value, int) else f"{value:,.4g}"


if __name__ == "__main__":
    main()

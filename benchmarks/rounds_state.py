"""How many check-ins the pure rounds handle in one CPU second: `python benchmarks/rounds_state.py --json`.

Each of `--devices` devices checks in once and gets an assignment, in one round with a goal of as many; then each asks
once more and gets the same assignment again; then each reports. No disk, no network: `TaskState.handle` alone, by the
processor time of this process.
"""

import argparse
import json
import time

from shoal.core.task import ArraySpec, Bounds, RoundPlan, TaskSpec
from shoal.rounds.effects import Assign
from shoal.rounds.events import CheckedIn, Event, Published, Reported
from shoal.rounds.state import TaskState


def main() -> None:
    options = argparse.ArgumentParser(description=__doc__)
    options.add_argument("--devices", type=int, default=100_000)
    options.add_argument("--json", action="store_true")
    asked = options.parse_args()
    found = measure(asked.devices)
    print(json.dumps(found) if asked.json else "\n".join(f"{name} {value:,.0f}" for name, value in found.items()))


def measure(devices: int) -> dict[str, float]:
    """Return how many events of each kind are handled in one CPU second."""
    plan = RoundPlan(goal=devices, minimum=1, deadline=1e6, lease=1e5)
    bounds = Bounds(max_weight=1024.0, max_updates=1 << (devices - 1).bit_length())
    spec = TaskSpec("rate", {"w": ArraySpec((1,), "float32")}, 1, plan, bounds=bounds, initial="0")
    state = TaskState.begin(Published("rate-1", spec), 0.0)
    names = [f"device-{number}" for number in range(devices)]
    assigned, repeated = (_rate(state, [CheckedIn(name) for name in names]) for _ in range(2))
    given = {name: lease.assignment.id for name, lease in state.leases.items()}
    effects = state.handle(CheckedIn(names[0]), 1.0)
    if not isinstance(effects[0], Assign) or len(given) != devices:
        raise SystemExit("not every device got its assignment")
    reported = _rate(state, [Reported(given[name], name, name, 10, 1) for name in names])
    return {
        "devices": devices,
        "state_checkins_per_cpu_s": round(assigned),
        "state_repeats_per_cpu_s": round(repeated),
        "state_reports_per_cpu_s": round(reported),
    }


def _rate(state: TaskState, events: list[Event]) -> float:
    started = time.process_time()
    for event in events:
        state.handle(event, 1.0)
        if isinstance(event, Reported):  # a driver looks at the timers before each report
            state.next_timer()
    return len(events) / (time.process_time() - started)


if __name__ == "__main__":
    main()

"""What a deployed round costs: the real `shoal demo`, all its processes counted, and rounds of a 100 MB model.

    python benchmarks/rounds.py --json
    python benchmarks/rounds.py --no-large

CPU time is read from /proc for the coordinator, the owners and the researcher, so this runs on Linux only. The first
rounds are left out of the figures per round: they pay for connections and first calls. The keys that begin with
`large_` are explained in benchmarks/large.py; they take a few minutes, 8 GB of memory and 3 GB of disk.
"""

import argparse
import json
import os
import platform
import subprocess
import sys
import tempfile
import time
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from importlib.metadata import version
from pathlib import Path

from processes import family_cpu

WARM = 5
LARGE_ROUNDS = 5
LARGE_ROUNDS_8_OWNERS = 2


@dataclass(frozen=True)
class Moment:
    """What had been spent when a round ended."""

    round: int
    wall: float
    cpu: float


@dataclass(frozen=True)
class Figures:
    """The result; seconds and bytes."""

    cpu_s_per_round: float
    wall_s_per_round: float
    bytes_per_owner_round: float
    first_round_s: float
    owners: int
    rounds: int
    cpu: str
    cores: int
    python: str
    torch: str


def cpu_model() -> str:
    lines = Path("/proc/cpuinfo").read_text().splitlines()
    return next((line.partition(":")[2].strip() for line in lines if line.startswith("model name")), platform.machine())


def measure(owners: int, rounds: int) -> Figures:
    command = [sys.executable, "-m", "shoal", "demo", "--json", "--owners", str(owners), "--rounds", str(rounds)]
    moments: list[Moment] = []
    rows: list[Mapping[str, float]] = []
    started = time.perf_counter()
    with (
        tempfile.TemporaryDirectory() as folder,
        subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, cwd=folder) as demo,
    ):
        assert demo.stdout is not None
        for line in demo.stdout:
            row = json.loads(line)
            # by the last round's line the processes may be ending already
            if not row.get("final") and row["round"] < rounds:
                moments.append(Moment(row["round"], time.perf_counter() - started, family_cpu(demo.pid)))
                rows.append(row)
    if demo.returncode != 0:
        raise SystemExit(f"{' '.join(command)} ended with exit code {demo.returncode}")
    return figures(owners, rounds, moments, rows)


def figures(owners: int, rounds: int, moments: list[Moment], rows: list[Mapping[str, float]]) -> Figures:
    first, last = moments[WARM - 1], moments[-1]
    between = last.round - first.round
    travelled = sum(row["bytes_up"] + row["bytes_down"] for row in rows[WARM:])
    return Figures(
        cpu_s_per_round=round((last.cpu - first.cpu) / between, 5),
        wall_s_per_round=round((last.wall - first.wall) / between, 5),
        bytes_per_owner_round=round(travelled / owners / between, 1),
        first_round_s=round(moments[0].wall, 3),
        owners=owners,
        rounds=rounds,
        cpu=cpu_model(),
        cores=os.cpu_count() or 1,
        python=platform.python_version(),
        torch=version("torch"),
    )


def large_figures() -> dict[str, float]:
    """Return the costs of a 100 MB model with 2 owners and 8."""
    import large  # torch, which it imports, is none of the demo's costs

    two, eight = large.measure(2, LARGE_ROUNDS), large.measure(8, LARGE_ROUNDS_8_OWNERS)
    return {
        "large_cpu_s_per_round": two.cpu_s_per_round,
        "large_server_peak_models": two.server_peak_models,
        "large_server_peak_models_8_owners": eight.server_peak_models,
        "large_owner_peak_models": max(two.owner_peak_models, eight.owner_peak_models),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description="Measure what a deployed round costs.")
    parser.add_argument("--owners", type=int, default=2)
    parser.add_argument("--rounds", type=int, default=100)
    parser.add_argument("--json", action="store_true", help="print one JSON object")
    parser.add_argument(
        "--large", action=argparse.BooleanOptionalAction, default=True, help="measure a 100 MB model, too"
    )
    options = parser.parse_args()
    if options.rounds < WARM + 2:
        parser.error(f"--rounds must be at least {WARM + 2}")
    result = asdict(measure(options.owners, options.rounds)) | (large_figures() if options.large else {})
    if options.json:
        print(json.dumps(result))
    else:
        print("\n".join(f"{name:34} {value}" for name, value in result.items()))


if __name__ == "__main__":
    main()

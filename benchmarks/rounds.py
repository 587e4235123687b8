"""What a deployed round costs: the real `shoal demo`, all its processes counted.

    python benchmarks/rounds.py --json

CPU time is read from /proc for the coordinator, the owners and the researcher, so this runs on Linux only. The first
rounds are left out of the figures per round: they pay for connections and first calls.
"""

import argparse
import json
import os
import platform
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass
from importlib.metadata import version
from pathlib import Path

WARM = 5
TICKS = os.sysconf("SC_CLK_TCK")


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


def stat(process: Path) -> tuple[int, int, float]:
    """Return a process's id, its parent's, and the CPU seconds of all its threads (proc(5))."""
    fields = (process / "stat").read_text().rpartition(")")[2].split()
    return int(process.name), int(fields[1]), (int(fields[11]) + int(fields[12])) / TICKS


def processes() -> Iterator[tuple[int, int, float]]:
    for process in Path("/proc").glob("[0-9]*"):
        try:
            yield stat(process)
        except (FileNotFoundError, ProcessLookupError):
            continue  # it ended between the two looks


def family_cpu(root: int) -> float:
    """Return the CPU seconds so far of a process and its children."""
    return sum(cpu for pid, parent, cpu in processes() if root in (pid, parent))


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


def main() -> None:
    parser = argparse.ArgumentParser(description="Measure what a deployed round costs.")
    parser.add_argument("--owners", type=int, default=2)
    parser.add_argument("--rounds", type=int, default=100)
    parser.add_argument("--json", action="store_true", help="print one JSON object")
    options = parser.parse_args()
    if options.rounds < WARM + 2:
        parser.error(f"--rounds must be at least {WARM + 2}")
    result = asdict(measure(options.owners, options.rounds))
    if options.json:
        print(json.dumps(result))
    else:
        print("\n".join(f"{name:24} {value}" for name, value in result.items()))


if __name__ == "__main__":
    main()

"""How fast clients are simulated: client updates per CPU second, end to end with exact sums.

    python benchmarks/simulate.py --json
    python benchmarks/simulate.py --workload w1 --trainer graph --trainer loop --turns 3 --json
    python benchmarks/simulate.py --pfl-venv VENV --fedjax-venv VENV --json
    python benchmarks/simulate.py --short --json

Every line is measured in a process of its own, by processor time: the numbers hold on a machine that is shared, as far
as its caches are not. The first rounds, which import, trace and compile, count for `cold_start_s` (process start to the
end of round 1) and `warm_cpu_s`, not for `updates_per_cpu_s`. `grown_mb` is by how much the peak of memory rose after
them, `own_share` the part of the CPU seconds that workers do not take over. `loss` is that of the model after one more
round than the workload says, by which all simulators can be compared. `--short` shows in few seconds that everything
runs; its speeds say little.

The scripts of the peers are in `benchmarks/peers`, with what to install; each needs a venv of its own.
"""

import argparse
import json
import os
import resource
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, ClassVar

from processes import processes

ROUNDS = {"w1": 400, "w1_1000": 60, "w2": 11, "w3": 200, "million": 60}
"""Rounds after the warm-up that are measured: enough for a second or more."""

SHORT_ROUNDS = 2
SHORT_WORKLOADS = ("w1", "million")
SHORT_TRAINERS = ("vmapped",)

WARM = 3

TRAINERS = ("auto", "loop", "vmapped", "graph", "compiled")

PEERS = {"pfl": "pfl_peer.py", "fedjax": "fedjax_peer.py"}
HERE = Path(__file__).resolve().parent

THREADS = dict.fromkeys(("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS"), "1")
SURROUNDINGS = {
    **THREADS,
    "PYTHONPATH": str(HERE),
    "JAX_PLATFORMS": "cpu",
    "XLA_FLAGS": "--xla_cpu_multi_thread_eigen=false intra_op_parallelism_threads=1",
}
"""Environment of a peer: one thread, as Shoal has."""


def cpu_seconds() -> tuple[float, float]:
    """Return the CPU seconds of this process, and those of it and its children, which still live."""
    own = time.process_time()
    return own, own + sum(cpu for _, parent, cpu in processes() if parent == os.getpid())


def peak_mb() -> float:
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


class Given:
    """The cohorts of the workload, whatever the seed."""

    remembers: ClassVar[bool] = False

    def __init__(self, cohorts: Sequence[Any]) -> None:
        self._cohorts = cohorts

    def choose(self, names: Sequence[str], cohort: int, *, seed: int, round: int, seen: object) -> list[str]:
        del names, cohort, seed, seen
        return [str(number) for number in self._cohorts[round - 1]]


class Meter:
    """Notes what had been spent when rounds ended."""

    def __init__(self, spawned: float, compared: int, last: int) -> None:
        self.spawned = spawned
        self.compared = compared
        self.last = last
        self.cold = 0.0
        self.warm = self.end = (0.0, 0.0)
        self.peak = 0.0
        self.params: Any = None

    def __call__(self, run: Any) -> None:
        number = run.history[-1].round
        if number == 1:
            self.cold = time.time() - self.spawned
        if number == WARM:
            self.warm, self.peak = cpu_seconds(), peak_mb()
        if number == self.compared:
            self.params = run.params
        if number == self.last:
            self.end = cpu_seconds()


def measure(name: str, trainer: str, workers: int, spawned: float, rounds: int) -> dict[str, Any]:
    import torch
    import workload_tasks
    import workloads

    import shoal
    from shoal.train.data import client_data
    from shoal.train.evaluate import evaluate

    torch.set_num_threads(1)
    work = workloads.WORKLOADS[name]
    total = max(rounds + WARM, work.rounds + 1)
    million = name == "million"
    rows = [] if million else workloads.data(work)
    source = workloads.Drawn(work) if million else rows
    meter = Meter(spawned, work.rounds + 1, total)
    task = workload_tasks.task(name)
    run = shoal.simulate(
        task,
        source,
        rounds=total,
        cohort=work.cohort,
        trainer=trainer,
        workers=workers,
        selection=None if million else Given(workloads.cohorts(work, total)),
        callbacks=[meter],
    )
    own, spent = (after - before for before, after in zip(meter.warm, meter.end, strict=True))
    test = workloads.Drawn(work).many(["0"])[0] if million else workloads.test_rows(name, rows)
    return {
        "workload": name,
        "trainer": trainer,
        "chosen": run.choice.trainer,
        "workers": workers,
        "own_share": round(own / spent, 3),
        "updates_per_cpu_s": round((total - WARM) * work.cohort / spent, 1),
        "peak_rss_mb": round(peak_mb(), 1),
        "grown_mb": round(peak_mb() - meter.peak, 1),
        "cold_start_s": round(meter.cold, 2),
        "warm_cpu_s": round(meter.warm[1], 2),
        "loss": round(evaluate(task, meter.params, client_data("test", test))["loss"], 5),
        "updates_per_wall_s": round(
            sum(row.reports for row in run.history[WARM:]) / sum(row.seconds for row in run.history[WARM:]), 1
        ),
        "reason": run.choice.reason,
    }


def apart(arguments: Sequence[str]) -> dict[str, Any]:
    """Run one measurement in a process of its own."""
    command = [sys.executable, __file__, "--spawned", repr(time.time()), *arguments]
    done = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True)
    found: dict[str, Any] = json.loads(done.stdout)
    return found


def peer(name: str, venv: str, workload: str) -> dict[str, Any]:
    python = Path(venv) / "bin" / "python"
    surroundings = {**os.environ, **SURROUNDINGS}
    command = [str(python), PEERS[name], workload, "--spawned", repr(time.time())]
    done = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True, cwd=HERE / "peers", env=surroundings)
    found: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return found


def results(options: argparse.Namespace) -> Iterator[dict[str, Any]]:
    venvs = {"pfl": options.pfl_venv, "fedjax": options.fedjax_venv}
    short: bool = options.short
    for workload in options.workload or (SHORT_WORKLOADS if short else ROUNDS):
        rounds = options.rounds or (SHORT_ROUNDS if short else ROUNDS[workload])
        for _ in range(options.turns):
            for trainer in options.trainer or (SHORT_TRAINERS if short else TRAINERS):
                fewer = max(2, rounds // 20) if trainer == "loop" and workload != "w2" else rounds
                given = ["--one", workload, trainer, "--workers", str(options.workers), "--rounds", str(fewer)]
                yield apart(given)
            if workload == "million":
                continue  # peers hold their clients in memory
            for name, venv in venvs.items():
                if venv:
                    yield peer(name, venv, workload)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--workload", action="append", choices=ROUNDS)
    parser.add_argument("--trainer", action="append", choices=TRAINERS)
    parser.add_argument("--workers", type=int, default=1)
    parser.add_argument("--rounds", type=int, default=0, help="rounds to measure (by default about a second or more)")
    parser.add_argument("--turns", type=int, default=1, help="how often everything is measured, one after the other")
    parser.add_argument("--short", action="store_true", help="few rounds of two workloads by one trainer")
    for name in PEERS:
        parser.add_argument(f"--{name}-venv", default="", metavar="FOLDER", help=f"where {name} is installed")
    parser.add_argument("--json", action="store_true", help="print one JSON object a line")
    parser.add_argument("--one", nargs=2, help=argparse.SUPPRESS)
    parser.add_argument("--spawned", type=float, default=time.time(), help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.one:
        print(json.dumps(measure(*options.one, options.workers, options.spawned, options.rounds)))
        return
    for row in results(options):
        print(
            json.dumps(row)
            if options.json
            else f"{row['workload']:8} {row['trainer']:9} {row['updates_per_cpu_s']:>10,.0f} /CPU s",
            flush=True,
        )


if __name__ == "__main__":
    main()

"""What every peer is measured by: CPU seconds after a warm-up round, the peak of memory, and the final loss."""

import argparse
import json
import resource
import time
from collections.abc import Callable
from dataclasses import dataclass

import workloads


@dataclass
class Meter:
    """A workload, and what its rounds cost: the first one, which imports and compiles, is told apart."""

    name: str
    spawned: float
    cold: float = 0.0
    warm: float = 0.0

    @property
    def work(self) -> workloads.Workload:
        return workloads.WORKLOADS[self.name]

    @property
    def rounds(self) -> int:
        return self.work.rounds + 1

    def warmed_up(self) -> None:
        """Round 1 is over."""
        self.cold, self.warm = time.time() - self.spawned, cpu_seconds()

    def tell(self, peer: str, version: str, loss: float, spent: float) -> None:
        """Print the line of a peer."""
        found = {
            "workload": self.name,
            "trainer": peer,
            "version": version,
            "updates_per_cpu_s": round(self.work.rounds * self.work.cohort / spent, 1),
            "peak_rss_mb": round(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024, 1),
            "cold_start_s": round(self.cold, 2),
            "warm_cpu_s": round(self.warm, 2),
            "loss": round(loss, 5),
        }
        print(json.dumps(found), flush=True)


def cpu_seconds() -> float:
    own, children = resource.getrusage(resource.RUSAGE_SELF), resource.getrusage(resource.RUSAGE_CHILDREN)
    return own.ru_utime + own.ru_stime + children.ru_utime + children.ru_stime


def run(peer: Callable[[Meter], None]) -> None:
    """Measure a peer on the workload that the command line names."""
    parser = argparse.ArgumentParser()
    parser.add_argument("workload", choices=["w1", "w1_1000", "w2", "w3"])
    parser.add_argument("--spawned", type=float, default=time.time())
    options = parser.parse_args()
    peer(Meter(options.workload, options.spawned))

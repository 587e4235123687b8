"""What remote tensors cost: one training step at a worker in a second process, over a real WebSocket.

    python benchmarks/remote.py --json

prints one object. Ratios are CPU seconds against the same step by plain local torch, measured in turns with it;
`recorded_cpu_ratio` and `repeat_cpu_ratio` count both processes, `eager_client_cpu_ratio` this one. Bytes are those of
a step up and down with WebSocket frames. `local_slowdown_ratio` is a plain local step with remote tensors in use in
the process, against one in a process that never imported them.
"""

import argparse
import json
import os
import resource
import statistics
import subprocess
import sys
import tempfile
from collections.abc import Callable
from itertools import cycle, islice, pairwise
from pathlib import Path
from typing import Any

import torch
from torch import nn
from torch.nn import functional

BATCH = 8
BATCHES = 50

Step = Callable[[Any, Any], Any]


def mlp() -> nn.Module:
    sizes = [13, 32, 24, 16, 1]
    layers = [each for a, b in pairwise(sizes) for each in (nn.Linear(a, b), nn.ReLU())]
    return nn.Sequential(*layers[:-1])


def cnn() -> nn.Module:
    return nn.Sequential(
        nn.Conv2d(1, 8, 3), nn.BatchNorm2d(8), nn.ReLU(), nn.MaxPool2d(2), nn.Flatten(), nn.Linear(8 * 13 * 13, 10)
    )


def regression() -> tuple[torch.Tensor, torch.Tensor]:
    return torch.randn(BATCH * BATCHES, 13), torch.randn(BATCH * BATCHES, 1)


def images() -> tuple[torch.Tensor, torch.Tensor]:
    return torch.randn(BATCH * BATCHES, 1, 28, 28), torch.randint(0, 10, (BATCH * BATCHES,))


CASES: dict[str, tuple[Any, Any, Any, Any]] = {
    "sgd": (mlp, regression, functional.mse_loss, lambda p: torch.optim.SGD(p, lr=0.001)),
    "adam": (mlp, regression, functional.mse_loss, lambda p: torch.optim.Adam(p, lr=0.001)),
    "cnn": (cnn, images, functional.cross_entropy, lambda p: torch.optim.SGD(p, lr=0.001)),
}


def stepping(model: nn.Module, loss: Any, optimizer: torch.optim.Optimizer) -> Step:
    def step(x: Any, y: Any) -> None:
        optimizer.zero_grad()
        loss(model(x), y).backward()
        optimizer.step()

    return step


def made(case: str) -> tuple[nn.Module, torch.Tensor, torch.Tensor, Any, torch.optim.Optimizer]:
    model, data, loss, optimizer = CASES[case]
    torch.manual_seed(0)
    network = model()
    return network, *data(), loss, optimizer(network.parameters())


def here() -> float:
    used = resource.getrusage(resource.RUSAGE_SELF)
    return used.ru_utime + used.ru_stime


def there(pid: int) -> float:
    """CPU seconds of another process, all threads."""
    return sum(int((task / "schedstat").read_text().split()[0]) / 1e9 for task in Path(f"/proc/{pid}/task").iterdir())


def timed(count: int, run: Callable[[int], None]) -> float:
    began = here()
    run(count)
    return (here() - began) / count


def over(batches: list[Any], step: Step) -> Callable[[int], None]:
    def run(count: int) -> None:
        for x, y in islice(cycle(batches), count):
            step(x, y)

    return run


def local(case: str) -> Callable[[int], None]:
    model, x, y, loss, optimizer = made(case)
    return over(list(zip(x.split(BATCH), y.split(BATCH), strict=True)), stepping(model, loss, optimizer))


class Worker:
    """A worker process and the handle of it."""

    def __init__(self) -> None:
        self.home = tempfile.TemporaryDirectory()
        command = [sys.executable, "-m", "shoal", "worker", "--home", self.home.name, "--port", "0", "--json"]
        self.process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL)
        assert self.process.stdout is not None
        told = json.loads(self.process.stdout.readline())
        import shoal

        self.handle = shoal.connect(told["url"], token=told["tokens"]["researcher"])

    def timed(self, count: int, run: Callable[[int], None]) -> tuple[float, float]:
        """CPU seconds of a step in this process and in the worker's."""
        began = there(self.process.pid)
        client = timed(count, run)
        return client, (there(self.process.pid) - began) / count

    def end(self) -> None:
        self.handle.close()
        self.process.terminate()
        self.process.wait(30)
        self.home.cleanup()


def measure(case: str, worker: Worker, count: int, turns: int) -> dict[str, float]:
    import shoal

    bob = worker.handle
    plain = local(case)
    ways: dict[str, Callable[[int], None]] = {"plain": plain}
    for way in ("eager", "recorded", "repeat"):
        model, x, y, loss, optimizer = made(case)
        shoal.send(model, bob)
        batches = list(zip(bob.send(x).split(BATCH), bob.send(y).split(BATCH), strict=True))
        step = stepping(model, loss, optimizer)
        if way == "eager":
            ways[way] = over(batches, step)
            continue
        recorded = shoal.record(step)
        ways[way] = over(batches, recorded) if way == "recorded" else _repeated(recorded, batches)
        over(batches, recorded)(5)
    for run in ways.values():
        run(BATCHES)
    bob.sync()
    times: dict[str, list[tuple[float, float]]] = {way: [] for way in ways}
    traffic: dict[str, tuple[float, float, float]] = {}
    for _ in range(turns):
        for way, run in ways.items():
            before = (bob.traffic.waits, bob.traffic.messages_sent, bob.traffic.bytes_sent + bob.traffic.bytes_received)
            times[way].append(worker.timed(count, _settled(run, bob, way)))
            after = (bob.traffic.waits, bob.traffic.messages_sent, bob.traffic.bytes_sent + bob.traffic.bytes_received)
            traffic[way] = tuple((b - a) / count for a, b in zip(before, after, strict=True))  # type: ignore[assignment]
    base = statistics.median(client for client, _ in times["plain"])
    ratio = {way: statistics.median(map(sum, each)) / base for way, each in times.items()}
    of_client = statistics.median(client for client, _ in times["eager"]) / base
    settling = 1 / count  # the wait at the end of a turn, which is not of a step
    return {
        "plain_ms": round(base * 1000, 4),
        "eager_round_trips_per_step": round(traffic["eager"][0] - settling, 6),
        "eager_messages_per_step": round(traffic["eager"][1], 4),
        "eager_bytes_per_step": round(traffic["eager"][2], 1),
        "eager_client_cpu_ratio": round(of_client, 3),
        "eager_worker_cpu_ratio": round(ratio["eager"] - of_client, 3),
        "recorded_messages_per_step": round(traffic["recorded"][1], 4),
        "recorded_bytes_per_step": round(traffic["recorded"][2], 1),
        "recorded_cpu_ratio": round(ratio["recorded"], 3),
        "repeat_messages_per_step": round(traffic["repeat"][1], 4),
        "repeat_bytes_per_step": round(traffic["repeat"][2], 1),
        "repeat_cpu_ratio": round(ratio["repeat"], 3),
    }


def _settled(run: Callable[[int], None], bob: Any, way: str) -> Callable[[int], None]:
    def settled(count: int) -> None:
        run(count)
        if way != "plain":
            bob.sync()

    return settled


def _repeated(recorded: Any, batches: list[Any]) -> Callable[[int], None]:
    def run(count: int) -> None:
        recorded.repeat(islice(cycle(batches), count))

    return run


def untouched(count: int) -> list[str]:
    """A process that never imports remote tensors: a line in, the time of so many local steps out."""
    return [sys.executable, __file__, "--untouched", str(count)]


def answer_untouched(count: int) -> None:
    torch.set_num_threads(1)
    run = local("sgd")
    run(BATCHES)
    for _ in sys.stdin:
        print(timed(count, run), flush=True)


def slowdown(count: int, turns: int) -> float:
    with subprocess.Popen(untouched(count), stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdin is not None
        assert process.stdout is not None
        run = local("sgd")
        run(BATCHES)
        ratios = []
        for _ in range(2 * turns):
            process.stdin.write("\n")
            process.stdin.flush()
            without = float(process.stdout.readline())
            ratios.append(timed(count, run) / without)
        process.stdin.close()
    return statistics.median(ratios)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--json", action="store_true", help="print one object on one line")
    parser.add_argument("--steps", type=int, default=150, help="steps of a turn")
    parser.add_argument("--turns", type=int, default=5, help="turns of which the median counts")
    parser.add_argument("--only", choices=list(CASES), help="measure one case")
    parser.add_argument("--untouched", type=int, help=argparse.SUPPRESS)
    given = parser.parse_args()
    if given.untouched:
        answer_untouched(given.untouched)
        return
    os.environ.setdefault("OMP_NUM_THREADS", "1")
    torch.set_num_threads(1)
    worker = Worker()
    try:
        found = {case: measure(case, worker, given.steps, given.turns) for case in CASES if given.only in (None, case)}
        result: dict[str, Any] = {
            **found.pop("sgd", {}),
            "local_slowdown_ratio": round(slowdown(given.steps, given.turns), 3),
            **found,
        }
    finally:
        worker.end()
    print(json.dumps(result, indent=None if given.json else 2))


if __name__ == "__main__":
    main()

"""The classic tutorial, made right: Boston Housing at two workers, one optimizer each, federated averaging.

python examples/boston_remote.py [--websocket] [--epochs 100] [--json]

With --websocket, bob and alice are two `shoal worker` processes; without, they live in this process.
"""

import argparse
import copy
import json
import subprocess
import sys
import tempfile
from contextlib import ExitStack
from itertools import pairwise

import torch
from torch import nn
from torch.nn import functional

import shoal
from shoal.remote.recording import Recorded
from shoal.remote.worker import Worker

OWNERS = ("bob", "alice")
options = argparse.ArgumentParser(description=__doc__.splitlines()[0])
options.add_argument("--websocket", action="store_true")
options.add_argument("--epochs", type=int, default=100)
options.add_argument("--json", action="store_true")


def boston() -> tuple[torch.Tensor, ...]:
    x, y, x_test, y_test = (torch.from_numpy(each).float() for each in shoal.data.boston_housing())
    mean, deviation = x.mean(0), x.std(0)
    mean[3], deviation[3] = 0, 1  # CHAS is 0 or 1 and stays so
    return (x - mean) / deviation, y, (x_test - mean) / deviation, y_test


def process(name: str, stack: ExitStack) -> Worker:
    command = [sys.executable, "-m", "shoal", "worker", "--name", name, "--port", "0", "--json", "--stop-with-stdin"]
    home = stack.enter_context(tempfile.TemporaryDirectory())
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "stderr": subprocess.DEVNULL}
    started = stack.enter_context(subprocess.Popen([*command, "--home", home], **pipes))
    told = json.loads(started.stdout.readline())
    return stack.enter_context(shoal.connect(told["url"], token=told["tokens"]["researcher"]))


def recorded(model: nn.Module) -> Recorded:
    optimizer = torch.optim.SGD(model.parameters(), lr=0.001)

    def step(x: torch.Tensor, y: torch.Tensor) -> None:
        optimizer.zero_grad()
        functional.mse_loss(model(x).squeeze(-1), y).backward()
        optimizer.step()

    return shoal.record(step)


def main() -> None:
    asked = options.parse_args()
    torch.set_num_threads(1)
    x, y, x_test, y_test = boston()
    torch.manual_seed(1)
    sizes = (13, 32, 24, 16, 1)
    layers = [part for a, b in pairwise(sizes) for part in (nn.Linear(a, b), nn.ReLU())]
    average = nn.Sequential(*layers[:-1])
    with ExitStack() as stack:
        workers = {name: process(name, stack) if asked.websocket else shoal.VirtualWorker(name) for name in OWNERS}
        rows = [shoal.FederatedTensor.deal(each, list(workers.values())) for each in (x, y)]
        batches = shoal.FederatedDataLoader(*rows, batch_size=8)
        models = {name: shoal.send(copy.deepcopy(average), worker) for name, worker in workers.items()}
        steps = {name: recorded(model) for name, model in models.items()}
        for epoch in range(1, asked.epochs + 1):
            for name, model in models.items():  # everybody begins from the average
                state = {key: workers[name].send(value) for key, value in average.state_dict().items()}
                model.load_state_dict(state)
                steps[name].repeat(batches.of(name))  # one message; nobody waits, so both work at once
            average = shoal.federated_avg(models, weights={name: len(rows[0][name]) for name in OWNERS})
            mse = functional.mse_loss(average(x_test).squeeze(-1), y_test).item()
            traffic = [worker.traffic for worker in workers.values()]
            told = {"epoch": epoch, "mse": round(mse, 5), "waiting_s": round(sum(t.seconds for t in traffic), 3)}
            told["bytes"] = sum(t.bytes_sent + t.bytes_received for t in traffic)
            print(json.dumps(told) if asked.json else "  ".join(f"{key} {value}" for key, value in told.items()))


if __name__ == "__main__":
    main()

"""A simulation on a Ray of this machine; the model is defined here, in __main__."""

import json
import sys

import numpy as np
import ray
import torch
from torch import nn
from torch.nn.functional import mse_loss

import shoal
from shoal.core.errors import TaskError


class Net(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.head = nn.Linear(3, 1)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.head(x)


class Fragile(Net):
    def forward(self, x: torch.Tensor) -> torch.Tensor:
        if float(x.sum()) > 1e6:
            raise ValueError("too large")
        return super().forward(x)


def main(home: str) -> None:
    draw = np.random.default_rng(0)
    clients = [
        (draw.standard_normal((n, 3), np.float32), draw.standard_normal((n, 1), np.float32)) for n in range(1, 9)
    ]
    torch.manual_seed(0)
    net = Net()
    task = shoal.Task("t", net, mse_loss, local=shoal.LocalPlan(batch_size=2, optimizer=shoal.sgd(0.1)))
    options = {"rounds": 3, "cohort": 6, "seed": 3, "trainer": "vmapped", "chunk": 2}
    alone = shoal.simulate(task, clients, **options)
    ray.init(address="local", num_cpus=2, include_dashboard=False, _temp_dir=home)
    spread = shoal.simulate(task, clients, workers="ray", **options)
    bad = [*clients[:-1], (np.full((2, 3), 1e9, np.float32), clients[1][1])]
    try:
        shoal.simulate(shoal.Task("f", Fragile(), mse_loss), bad, rounds=1, workers="ray", trainer="loop")
        told = ""
    except TaskError as error:
        told = error.problem
    ray.shutdown()
    digests = [[version.digest for version in run.versions] for run in (alone, spread)]
    sys.stdout.write(json.dumps({"alone": digests[0], "ray": digests[1], "told": told}) + "\n")


if __name__ == "__main__":
    main(sys.argv[1])

"""Clients whose losses are parabolas, so that what every strategy does to them can be written down.

A client's loss is a * (w - b)**2, from rows x = sqrt(a), y = sqrt(a) * b. All its rows are alike: a batch of one row
gives the gradient 2 * a * (w - b), and a client with r rows takes r steps an epoch.
"""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch
from torch import nn
from torch.nn.functional import mse_loss

from shoal import LocalPlan, Strategy, Task, sgd
from shoal.core.task import OptimizerSpec


@dataclass(frozen=True)
class Parabola:
    a: float
    b: float
    rows: int

    def data(self) -> tuple[np.ndarray, np.ndarray]:
        x = np.full((self.rows, 1), np.sqrt(self.a), np.float32)
        return x, (x * self.b).astype(np.float32)

    def gradient(self, w: float) -> float:
        return 2 * self.a * (w - self.b)

    def descend(self, w: float, lr: float, added: Callable[[float], float] = lambda w: 0.0) -> float:
        """Take one epoch of steps along the gradient and what is added to it."""
        for _ in range(self.rows):
            w -= lr * (self.gradient(w) + added(w))
        return w


TWO = {"one": Parabola(1.0, 0.0, 1), "three": Parabola(0.25, 4.0, 3)}
SHARES = {"one": 0.25, "three": 0.75}
OPTIMUM = 12 / 7
"""Where the sum weighted by rows is least: (0.75 * 0.25 * 4) / (0.25 * 1 + 0.75 * 0.25)."""
EQUAL_OPTIMUM = 0.8
"""Where the sum is least in which every client counts once: (0.25 * 4) / (1 + 0.25)."""
LR = 0.1


def rows(clients: dict[str, Parabola] = TWO) -> dict[str, tuple[np.ndarray, np.ndarray]]:
    return {name: client.data() for name, client in clients.items()}


def parabola_task(strategy: Strategy, start: float = 1.0, optimizer: OptimizerSpec | None = None) -> Task:
    model = nn.Linear(1, 1, bias=False)
    with torch.no_grad():
        model.weight.fill_(start)
    plan = LocalPlan(batch_size=1, optimizer=optimizer or sgd(LR))
    return Task("parabolas", model, mse_loss, local=plan, strategy=strategy)

"""Models and clients on which trainers are compared."""

from collections.abc import Mapping, Sequence
from dataclasses import replace

import numpy as np
import torch
from torch import nn
from torch.nn import functional

from shoal import LocalPlan, Task
from shoal.core.tree import Tree
from shoal.train.arrays import describe, read_arrays
from shoal.train.cohort import CohortTrainer, Trained
from shoal.train.data import ClientData

ROWS = (12, 5, 1, 8, 20, 3, 8, 13)


class Recurrent(nn.Module):
    def __init__(self, kind: type[nn.RNNBase]) -> None:
        super().__init__()
        self.embedding = nn.Embedding(11, 5)
        self.recurrent = kind(5, 6, batch_first=True)
        self.head = nn.Linear(6, 3)

    def forward(self, tokens: torch.Tensor) -> torch.Tensor:
        return self.head(self.recurrent(self.embedding(tokens))[0][:, -1])


class Attention(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.embedding = nn.Embedding(11, 8)
        self.mixed = nn.Linear(8, 24)
        self.norm = nn.LayerNorm(8)
        self.head = nn.Linear(8, 3)

    def forward(self, tokens: torch.Tensor) -> torch.Tensor:
        q, k, v = self.mixed(self.embedding(tokens)).chunk(3, -1)
        return self.head(self.norm(functional.scaled_dot_product_attention(q, k, v)).mean(1))


def mlp(inputs: int = 4) -> nn.Module:
    return nn.Sequential(nn.Linear(inputs, 8), nn.ReLU(), nn.Linear(8, 1))


def regression_task(plan: LocalPlan, model: nn.Module | None = None, **options: object) -> Task:
    torch.manual_seed(0)
    return Task("regression", model or mlp(), functional.mse_loss, local=plan, **options)  # type: ignore[arg-type]


def regression_clients(rows: Sequence[int] = ROWS, inputs: int = 4) -> list[ClientData]:
    rng = np.random.default_rng(1)
    return [
        ClientData(
            f"c{i}",
            {
                "x": rng.standard_normal((n, inputs), np.float32),
                "y": rng.standard_normal((n, 1), np.float32),
            },
            f"a{i}",
            100 + i,
        )
        for i, n in enumerate(rows)
    ]


def token_clients(rows: Sequence[int] = (4, 6, 3)) -> list[ClientData]:
    rng = np.random.default_rng(2)
    return [
        ClientData(f"c{i}", {"x": rng.integers(0, 11, (n, 6)), "y": rng.integers(0, 3, n)}, f"a{i}", i)
        for i, n in enumerate(rows)
    ]


def image_clients(rows: Sequence[int] = (4, 6, 2)) -> list[ClientData]:
    rng = np.random.default_rng(3)
    return [
        ClientData(
            f"c{i}", {"x": rng.standard_normal((n, 1, 8, 8), np.float32), "y": rng.integers(0, 3, n)}, f"a{i}", i
        )
        for i, n in enumerate(rows)
    ]


def params_of(task: Task) -> Tree:
    arrays = describe(task.model, task.roles)
    return read_arrays(task.model, (name for name, spec in arrays.items() if spec.role.travels))


def train(
    trainer: CohortTrainer,
    task: Task,
    clients: Sequence[ClientData],
    *,
    personal: Mapping[str, Tree] | None = None,
    round: int = 2,
) -> Trained:
    return trainer.train_cohort(params_of(task), task.plan, clients, personal or {}, round)


def corrected(clients: Sequence[ClientData], like: Tree) -> list[ClientData]:
    """Return the clients with a correction of (i + 1) / 10 in every place for client i."""
    full = {name: np.ones_like(array) for name, array in like.items()}
    return [
        replace(client, correction={name: array * np.float32((i + 1) / 10) for name, array in full.items()})
        for i, client in enumerate(clients)
    ]


def furthest(left: Trained, right: Trained) -> float:
    """Return the largest difference between two results, in arrays whose values are about 1."""
    assert left.positions == right.positions
    assert left.updates is not None
    assert right.updates is not None
    np.testing.assert_array_equal(left.updates.weights, right.updates.weights)
    np.testing.assert_allclose(left.updates.losses, right.updates.losses, rtol=1e-4)
    return max(float(np.abs(left.updates.delta[name] - right.updates.delta[name]).max()) for name in left.updates.delta)

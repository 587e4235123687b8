"""A model of 100 MB and a few rows: what the benchmark's owners install."""

import numpy as np
import torch
from torch import nn

import shoal

WIDTH = 2048
HIDDEN = 6
FEATURES = 32
ROWS = 16


def task() -> shoal.Task:
    """Return the task; its arrays take 101 MB."""
    torch.manual_seed(1)
    hidden = [layer for _ in range(HIDDEN) for layer in (nn.Linear(WIDTH, WIDTH), nn.ReLU())]
    model = nn.Sequential(nn.Linear(FEATURES, WIDTH), nn.ReLU(), *hidden, nn.Linear(WIDTH, 1), nn.Flatten(0))
    return shoal.Task(
        name="large",
        model=model,
        loss=nn.functional.mse_loss,
        local=shoal.LocalPlan(epochs=1, batch_size=ROWS, optimizer=shoal.sgd(lr=0.01)),
        example=data(),
    )


def data() -> tuple[np.ndarray, np.ndarray]:
    """Return the rows of an owner."""
    rng = np.random.default_rng(1)
    return rng.standard_normal((ROWS, FEATURES)).astype(np.float32), rng.standard_normal(ROWS).astype(np.float32)

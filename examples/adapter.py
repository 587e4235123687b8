"""Owners fine-tune a large model by a small adapter: the base stays frozen, and only the adapter travels.

LoRA (Hu et al. 2021, arXiv:2106.09685): a frozen weight W gets a trainable low-rank change, W + up @ down. Arrays
without requires_grad are frozen: they go to each owner once, and are in no version and no update. Try
`python examples/adapter.py`.
"""

import tempfile
from contextlib import ExitStack
from pathlib import Path

import numpy as np
import torch
from torch import nn

import shoal
from shoal.testing.server_process import ServerProcess

FEATURES, WIDTH, RANK, ROWS = 16, 768, 2, 200
OWNERS = ("alice", "bob")


class Adapted(nn.Module):
    """A linear layer of a base model, frozen, with a trainable change of rank RANK that begins at zero."""

    def __init__(self, base: nn.Linear) -> None:
        super().__init__()
        self.base = base.requires_grad_(False)
        self.down = nn.Parameter(torch.randn(RANK, base.in_features) / base.in_features**0.5)
        self.up = nn.Parameter(torch.zeros(base.out_features, RANK))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.base(x) + x @ self.down.T @ self.up.T


def rows(number: int, shift: float) -> tuple[np.ndarray, np.ndarray]:
    """Rows of one owner: where everybody's world is shifted, the base no longer fits."""
    x = np.random.default_rng(number).standard_normal((ROWS, FEATURES)).astype(np.float32)
    return x, np.sin(x[:, 0] + shift) + x[:, 1]


def pretrained() -> nn.Sequential:
    """Train the base as its maker would, on a world that is not shifted."""
    torch.manual_seed(1)
    base = nn.Sequential(nn.Linear(FEATURES, WIDTH), nn.ReLU(), nn.Linear(WIDTH, WIDTH), nn.ReLU(), nn.Linear(WIDTH, 1))
    x, y = map(torch.from_numpy, rows(0, shift=0))
    optimizer = torch.optim.Adam(base.parameters(), lr=1e-3)
    for _ in range(60):
        base.zero_grad()
        nn.functional.mse_loss(base(x).squeeze(-1), y).backward()
        optimizer.step()
    return base


def main(rounds: int = 5) -> tuple[list, dict, list]:
    """Return what each round cost all owners, the bytes of base and adapter, and the error without and with it."""
    torch.set_num_threads(1)
    layers = [Adapted(layer) if isinstance(layer, nn.Linear) else layer for layer in pretrained()]
    model, example = nn.Sequential(*layers, nn.Flatten(0)), rows(99, shift=1)
    local = shoal.LocalPlan(epochs=5, batch_size=20, optimizer=shoal.adam(lr=2e-3))
    task = shoal.Task(name="adapter", model=model, loss=nn.functional.mse_loss, local=local, example=example)
    sizes = {kind: sum(p.nbytes for p in model.parameters() if p.requires_grad == kind) for kind in (False, True)}
    with tempfile.TemporaryDirectory() as folder, ExitStack() as left_open:
        server = left_open.enter_context(ServerProcess(Path(folder, "coordinator"), Path(folder, "log")))
        server.start()
        coordinator = left_open.enter_context(shoal.Coordinator.connect(server.url, token=server.admin_token))
        run, devices = coordinator.publish(task, rounds=rounds, goal=len(OWNERS)), []
        for number, name in enumerate(OWNERS, 1):
            device = shoal.Device.join(server.url, task=task, token=server.enrolment_token, home=Path(folder, name))
            devices.append(left_open.enter_context(device))
            device.observe(*rows(number, shift=1))
        versions, costs = run.follow(), []
        for _ in range(rounds):
            assert all(device.sync() for device in devices)
            costs.append(next(versions).costs)
        errors = [run.evaluate(task, number, example)["loss"] for number in (0, rounds)]
    print(f"base {sizes[False] / 1e6:.2f} MB, adapter {sizes[True] / 1e6:.3f} MB, {len(OWNERS)} owners")
    for number, cost in enumerate(costs, 1):
        print(f"round {number}: sent {cost.bytes_up / 1e6:.3f} MB, received {cost.bytes_down / 1e6:.3f} MB")
    print(f"error where the world is shifted: {errors[0]:.3f} without adapter, {errors[1]:.3f} with it")
    return costs, sizes, errors


if __name__ == "__main__":
    main()

"""Devices whose users differ, and a task with a part that stays on each."""

from pathlib import Path

import numpy as np
import torch
from torch import nn

from shoal.agent.device import Device
from shoal.agent.policy import Policy
from shoal.agent.standing import DeviceSettings
from shoal.algorithms.local import sgd
from shoal.core.task import LocalPlan
from shoal.train.task import Task
from tests.agent.federation import URL, Federation

SLOPE = np.float32([1.0, -2.0, 3.0])


class Offset(nn.Module):
    """y = a x + b; `b` is the user's own, as a role pattern may say."""

    def __init__(self) -> None:
        super().__init__()
        self.a = nn.Parameter(torch.zeros(3))
        self.b = nn.Parameter(torch.zeros(()))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x @ self.a + self.b


def offset_task(start: str = "global", own: bool = False, **changes: object) -> Task:
    options: dict[str, object] = {
        "name": "offset",
        "model": Offset(),
        "loss": nn.functional.mse_loss,
        "local": LocalPlan(epochs=3, batch_size=4, optimizer=sgd(0.05), start=start),  # type: ignore[arg-type]
        "example": (-np.ones((4, 3), np.float32), -np.ones(4, np.float32)),
        "roles": {"b": "local"} if own else {},
    }
    return Task(**{**options, **changes})  # type: ignore[arg-type]


def user_data(name: str, rows: int = 40) -> tuple[np.ndarray, np.ndarray]:
    """Examples of one user, whose own offset follows from the name."""
    rng = np.random.default_rng(sum(name.encode()))
    offset = rng.uniform(-4, 4)
    x = rng.standard_normal((rows, 3)).astype(np.float32)
    return x, (x @ SLOPE + offset).astype(np.float32)


def open_device(federation: Federation, name: str, task: Task | None = None, **settings: object) -> Device:
    options = {"policy": Policy(statistics=False, minimum_rows=1), "probe_seconds": 0.0, **settings}
    return Device.join(
        URL,
        home=federation.folder / f"device-{name}",
        task=task or offset_task(),
        token=federation.enrolment,
        name=name,
        settings=DeviceSettings(**options),  # type: ignore[arg-type]
        transport=federation.transport,
        say=federation.said,
    )


def files(home: Path) -> list[str]:
    return sorted(str(path.relative_to(home)) for path in home.rglob("*") if path.is_file())

"""A device whose predictions get better with use: python examples/device_gets_better.py [OTHERS [PLOT.png]].

People rate things by sixteen properties. They agree on what matters, but each has a level of their own, which nobody
else should know: the model's bias has the role local and never leaves its device.
"""

import sys
import tempfile
from contextlib import ExitStack
from functools import partial
from pathlib import Path

import numpy as np
import torch
from torch import nn

import shoal
from shoal.testing.server_process import ServerProcess

FEATURES, EXAMPLES, ROUNDS = 16, 30, 8
MATTERS = np.random.default_rng(0).standard_normal(FEATURES)
torch.manual_seed(0)

TASK = shoal.Task(
    name="rating",
    model=nn.Linear(FEATURES, 1),
    loss=nn.functional.mse_loss,
    local=shoal.LocalPlan(epochs=4, batch_size=8, optimizer=shoal.sgd(lr=0.03)),
    example=(-np.ones((8, FEATURES), np.float32), -np.ones((8, 1), np.float32)),
    roles={"bias": "local"},
)


def ratings(person: int, count: int) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng([person, count])
    x = rng.standard_normal((count, FEATURES)).astype(np.float32)
    level = np.random.default_rng(person).uniform(2, 8)
    return x, (x @ MATTERS + level + rng.standard_normal(count)).astype(np.float32)[:, None]


def error(device: shoal.Device) -> float:
    x, y = ratings(0, 1000)  # things that the first person's device never saw
    return float(((device.predict(x) - y) ** 2).mean())


def stages(server: ServerProcess, others: int, folder: Path, left_open: ExitStack) -> dict[str, float]:
    coordinator = left_open.enter_context(shoal.Coordinator.connect(server.url, token=server.admin_token))
    versions = coordinator.publish(TASK, rounds=ROUNDS, goal=1 + others).follow()
    join = partial(shoal.Device.join, server.url, task=TASK, token=server.enrolment_token)
    devices = [left_open.enter_context(join(home=folder / f"person-{i}")) for i in range(1 + others)]
    mine, before = devices[0], error(devices[0])
    for person, device in enumerate(devices):
        device.observe(*ratings(person, EXAMPLES))
    for _ in range(ROUNDS):  # as much training as the rounds will take
        mine.personalise()
    alone = error(mine)
    for _ in range(ROUNDS):
        for device in devices:
            device.sync()
        next(versions)
    mine.sync()  # brings the last version
    return {"before": before, "after personalising": alone, f"after syncing with {others} others": error(mine)}


def main(others: int = 20, plot: str = "") -> dict[str, float]:
    torch.set_num_threads(1)
    with tempfile.TemporaryDirectory() as name, ExitStack() as left_open:
        server = left_open.enter_context(ServerProcess(Path(name, "coordinator"), Path(name, "log")))
        server.start()
        errors = stages(server, others, Path(name), left_open)
    for stage, value in errors.items():
        print(f"{stage:30} {value:8.2f}  {'#' * round(30 * value / errors['before'])}")
    if plot:
        import matplotlib.figure

        figure = matplotlib.figure.Figure(figsize=(7, 2.2), layout="constrained")
        axes = figure.subplots()
        axes.bar_label(axes.barh(list(errors)[::-1], list(errors.values())[::-1]), fmt=" %.2f")
        axes.margins(x=0.12)
        axes.set_xlabel("mean squared error on 1,000 things that the device never saw")
        figure.savefig(plot)
    return errors


if __name__ == "__main__":
    main(*map(int, sys.argv[1:2]), *sys.argv[2:3])

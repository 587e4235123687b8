"""Pages whose device joined a coordinator, and what such tests share."""

import numpy as np
import torch
from torch import nn

import shoal
from shoal.researcher.coordinator import Coordinator
from shoal.researcher.run import Run
from shoal.testing.server_process import ServerProcess
from tests.web.browser import Browser, Page

EPOCHS = 40
STEPS = EPOCHS * 4
OPEN = """
    const { Device } = await import("/page/device/index.js");
    window.device = await Device.join(location.origin, {
      runtime: { from: "runtime/" },
      worker: "device/worker.js",
      ...settings,
    });
"""
OBSERVE = "await device.observe(x, y);"
FAILURE = "({ name, code, message, status }) => ({ name, code, message, status })"


def regression() -> tuple[shoal.Task, np.ndarray, np.ndarray]:
    """Return a task that trains on a line with dropout, and 40 rows for it."""
    torch.manual_seed(0)
    net = nn.Sequential(nn.Linear(4, 8), nn.ReLU(), nn.Dropout(0.2), nn.Linear(8, 1), nn.Flatten(0))
    rng = np.random.default_rng(1)
    x = rng.normal(size=(40, 4)).astype(np.float32)
    y = (x @ np.float32([1, -2, 0.5, 3])).astype(np.float32)
    local = shoal.LocalPlan(epochs=2, batch_size=8, optimizer=shoal.adam(lr=1e-2))
    task = shoal.Task(
        name="line",
        model=net,
        loss=nn.functional.mse_loss,
        local=local,
        strategy=shoal.fedavg(),
        example=(x[:8], y[:8]),
    )
    return task, x, y


TASK, X, Y = regression()
ROWS = {"x": X.tolist(), "y": Y.tolist()}


def user(
    browser: Browser, server: ServerProcess, name: str, task: str, *, before: str = "", **settings: object
) -> Page:
    """Return the page of a new user, whose device joined; `before` is a script that runs before those of the page."""
    page = Page(browser, name, f"{server.url}/page/", before=before)
    page.do(OPEN, settings={"task": task, "token": server.enrolment_token, "name": name, **settings})
    return page


def again(page: Page, task: str, **settings: object) -> None:
    """Open the device of a page that was loaded anew: it needs no token."""
    page.do(OPEN, settings={"task": task, **settings})


def counted(coordinator: Coordinator, run: Run) -> int:
    """Return how many updates of a task were accepted, once none is in a round that closes."""
    while coordinator.status(run.id).reports > 0:
        pass  # a call takes its time; pytest bounds it
    return coordinator.versions(run.id)[-1].number

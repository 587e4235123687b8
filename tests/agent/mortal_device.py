"""A device that kills itself at a place: python -m tests.agent.mortal_device URL HOME NAME PLACE.

The enrolment token comes in SHOAL_TOKEN.
"""

import os
import signal
import sys

import httpx
import torch

from shoal.agent.device import Device
from shoal.agent.standing import DeviceSettings
from shoal.wire.http import SocketTransport, Traffic
from tests.agent.devices import offset_task, user_data

BATCH_TO_DIE = 5
"""Of the 24 batches of an assignment: three epochs over 32 examples in batches of 4."""


def die() -> None:
    os.kill(os.getpid(), signal.SIGKILL)


class Deadly(httpx.BaseTransport):
    """Kills the process when a path is about to be called, or was answered."""

    def __init__(self, path: str, *, after: bool) -> None:
        self._inner = SocketTransport(Traffic())
        self._path = path
        self._after = after

    def handle_request(self, request: httpx.Request) -> httpx.Response:
        meant = request.url.path.endswith(self._path)
        if meant and not self._after:
            die()
        response = self._inner.handle_request(request)
        if meant:
            response.read()
            die()
        return response


class DeadlyLoss:
    """A mean squared error that kills the process in the middle of the training that follows `armed`."""

    def __init__(self) -> None:
        self.armed = False
        self._batches = 0

    def __call__(self, output: torch.Tensor, target: torch.Tensor) -> torch.Tensor:
        self._batches += self.armed
        if self._batches == BATCH_TO_DIE:
            die()
        return torch.nn.functional.mse_loss(output, target)


TRANSPORTS = {
    "durable": ("/report", False),
    "reported": ("/report", True),
    "leaving": ("/devices/me", False),
    "left": ("/devices/me", True),
}


def main(url: str, home: str, name: str, place: str) -> None:
    torch.set_num_threads(1)
    loss = DeadlyLoss()
    transport = Deadly(TRANSPORTS[place][0], after=TRANSPORTS[place][1]) if place in TRANSPORTS else None
    device = Device.join(
        url,
        home=home,
        task=offset_task(loss=loss, own=True),
        token=os.environ["SHOAL_TOKEN"],
        name=name,
        settings=DeviceSettings(),
        transport=transport,
    )
    if place == "joined":
        die()
    device.observe(*user_data(name))
    if place == "observed":
        die()
    loss.armed = place == "personalising"
    device.personalise()
    if place in ("leaving", "left"):
        device.leave()
    loss.armed = place == "training"
    device.sync()
    if place == "acknowledged":
        die()


if __name__ == "__main__":
    main(*sys.argv[1:])

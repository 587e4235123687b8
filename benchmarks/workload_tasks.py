"""The workloads as Shoal's tasks."""

import torch
import workloads
from torch import nn
from torch.nn import functional

import shoal
from shoal import LocalPlan, Task


def model(name: str) -> nn.Module:
    """Return a workload's model with its initial weights."""
    if name == "w2":
        convolutions = [nn.Conv2d(1, 32, 3), nn.ReLU(), nn.MaxPool2d(2), nn.Conv2d(32, 64, 3), nn.ReLU()]
        net = nn.Sequential(*convolutions, nn.MaxPool2d(2), nn.Flatten(), nn.Linear(1600, 62))
    elif name == "w3":
        net = nn.Sequential(nn.Linear(784, 10))
    else:
        hidden = [nn.Linear(13, 32), nn.ReLU(), nn.Linear(32, 24), nn.ReLU(), nn.Linear(24, 16), nn.ReLU()]
        net = nn.Sequential(*hidden, nn.Linear(16, 1))
    with torch.no_grad():
        for parameter, values in zip(net.parameters(), workloads.initial(name), strict=True):
            parameter.copy_(torch.from_numpy(values))
    return net


def task(name: str) -> Task:
    """Return a workload as a task."""
    work = workloads.WORKLOADS[name]
    loss = functional.mse_loss if work.classes == 1 else functional.cross_entropy
    plan = LocalPlan(batch_size=work.batch, optimizer=shoal.sgd(work.lr), shuffle=False)
    return Task(name, model(name), loss, local=plan)

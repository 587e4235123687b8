"""The digits task: a small convolutional network that has learnt a thousand of scikit-learn's digits."""

import torch
from torch import nn

from shoal.algorithms.fedavg import fedavg
from shoal.algorithms.local import adam
from shoal.core.task import LocalPlan
from shoal.core.tree import Array
from shoal.data.digits import INK
from shoal.demo.digits.rows import Rows
from shoal.train.task import Task

NAME = "digits"
SEED = 1
EPOCHS = 30
BATCH = 64
RATE = 3e-3


class DigitNet(nn.Module):
    """Two convolutions and a layer on top; takes counts of ink x [rows, 64] from 0 to 16, gives logits [rows, 10]."""

    def __init__(self) -> None:
        super().__init__()
        self.first = nn.Conv2d(1, 16, 3, padding=1)
        self.second = nn.Conv2d(16, 32, 3, padding=1)
        self.top = nn.Linear(32 * 2 * 2, 10)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Return the logits of ten digits."""
        image = (x / INK).reshape(-1, 1, 8, 8)
        image = nn.functional.max_pool2d(self.first(image).relu(), 2)
        image = nn.functional.max_pool2d(self.second(image).relu(), 2)
        logits: torch.Tensor = self.top(image.flatten(1))
        return logits


def accuracy(output: torch.Tensor, target: torch.Tensor) -> torch.Tensor:
    """Return the share of right guesses."""
    return (output.argmax(1) == target).float().mean()


def task(rows: Rows) -> Task:
    """Return the task with a model that was trained on `rows.pretrained` already.

    Eight passes of Adam over about a hundred digits: measured, one corrected drawing is then guessed right at once,
    and by everyone's model after one to three rounds, while neither forgets the other digits.
    """
    x, y = rows.pretrained
    return Task(
        name=NAME,
        model=pretrained(x, y),
        loss=nn.functional.cross_entropy,
        metrics={"accuracy": accuracy},
        local=LocalPlan(epochs=8, batch_size=16, optimizer=adam(lr=RATE)),
        strategy=fedavg(),
        example=(x[:16], y[:16]),
        test=rows.test,
        ranges={"x": (0.0, float(INK)), "y": (0.0, 9.0)},
    )


def pretrained(x: Array, y: Array, epochs: int = EPOCHS) -> DigitNet:
    """Return a network that has learnt these digits: x float32 [rows, 64], y int64 [rows]."""
    inputs, targets = torch.from_numpy(x), torch.from_numpy(y)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(SEED)
        net = DigitNet()
        optimizer = torch.optim.Adam(net.parameters(), RATE)
        cooling = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, epochs)
        for _ in range(epochs):
            for places in torch.split(torch.randperm(len(inputs)), BATCH):
                optimizer.zero_grad()
                torch.autograd.backward(nn.functional.cross_entropy(net(inputs[places]), targets[places]))
                optimizer.step()
            cooling.step()
    return net

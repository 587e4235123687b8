"""Every kind of model that a plan is for, with real data: the Boston houses, scikit-learn's digits, a licence's text.

Each entry of ZOO makes a task whose example is real rows; `batches` deals out more of them, in sizes that differ.
"""

from collections.abc import Callable, Iterator, Mapping
from functools import cache
from pathlib import Path

import numpy as np
import torch
from sklearn.datasets import load_digits
from torch import nn
from torch.nn import functional

import shoal
from shoal.core.task import OptimizerSpec
from shoal.core.tree import Array
from shoal.data import boston_housing

Rows = Mapping[str, Array]
TEXT = Path(__file__).parents[2] / "LICENSE"
LENGTH, LETTERS = 6, 64
SIZES = (8, 8, 5, 3, 8)


class Mlp(nn.Module):
    """13-32-24-16-1, standardising inside."""

    def __init__(self) -> None:
        super().__init__()
        x = houses()["x"]
        self.register_buffer("mean", torch.tensor(x.mean(0)))
        self.register_buffer("deviation", torch.tensor(x.std(0)))
        self.layers = nn.Sequential(
            nn.Linear(13, 32), nn.ReLU(), nn.Linear(32, 24), nn.ReLU(), nn.Linear(24, 16), nn.ReLU(), nn.Linear(16, 1)
        )

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.layers((x - self.mean) / self.deviation).squeeze(-1)


def frozen_mlp() -> Mlp:
    """The same, its first layer frozen."""
    made = Mlp()
    made.layers[0].requires_grad_(False)
    return made


class LeNet(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.features = nn.Sequential(
            nn.Conv2d(1, 6, 5, padding=2), nn.ReLU(), nn.MaxPool2d(2), nn.Conv2d(6, 16, 5), nn.ReLU(), nn.MaxPool2d(2)
        )
        self.head = nn.Sequential(
            nn.Flatten(), nn.Linear(400, 120), nn.ReLU(), nn.Linear(120, 84), nn.ReLU(), nn.Linear(84, 10)
        )

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.head(self.features(x))


class Residual(nn.Module):
    """Batch and group normalisation, a residual, strided and grouped convolutions, two kinds of pooling."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Sequential(nn.Conv2d(1, 8, 3, padding=1, bias=False), nn.BatchNorm2d(8), nn.ReLU())
        self.grouped = nn.Conv2d(8, 8, 3, padding=1, groups=2)
        self.norm = nn.GroupNorm(2, 8)
        self.strided = nn.Conv2d(8, 16, 3, stride=2, padding=1)
        self.second = nn.BatchNorm2d(16)
        self.pool = nn.AvgPool2d(2)
        self.head = nn.Linear(16, 10)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = self.stem(x)
        x = x + functional.relu(self.norm(self.grouped(x)))
        x = functional.max_pool2d(x, 3, stride=1, padding=1)
        x = self.pool(functional.relu(self.second(self.strided(x))))
        return self.head(functional.adaptive_avg_pool2d(x, 1).flatten(1))


class Dropped(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.layers = nn.Sequential(
            nn.Linear(64, 32), nn.LayerNorm(32), nn.GELU(), nn.Dropout(0.2), nn.Linear(32, 24), nn.SiLU(),
            nn.Dropout(0.1), nn.Linear(24, 10),
        )  # fmt: skip

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.layers(x.flatten(1))


class Recurrent(nn.Module):
    def __init__(self, kind: type[nn.LSTM] | type[nn.GRU]) -> None:
        super().__init__()
        self.embedding = nn.Embedding(LETTERS, 12)
        self.recurrent = kind(12, 24, batch_first=True)
        self.head = nn.Linear(24, LETTERS)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.head(self.recurrent(self.embedding(x))[0]).transpose(1, 2)


class Transformer(nn.Module):
    def __init__(self, dropout: float = 0.0) -> None:
        super().__init__()
        self.embedding = nn.Embedding(LETTERS, 32)
        self.places = nn.Parameter(torch.randn(LENGTH, 32) * 0.02)
        layer = nn.TransformerEncoderLayer(32, 4, 64, dropout=dropout, batch_first=True, norm_first=True)
        self.encoder = nn.TransformerEncoder(layer, 2, enable_nested_tensor=False)
        self.head = nn.Linear(32, LETTERS)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        mask = nn.Transformer.generate_square_subsequent_mask(x.shape[1])
        return self.head(self.encoder(self.embedding(x) + self.places, mask=mask)).transpose(1, 2)


class Adapted(nn.Module):
    """A frozen base with a low-rank adapter (LoRA), which alone travels."""

    def __init__(self) -> None:
        super().__init__()
        self.base = nn.Sequential(nn.Linear(64, 48), nn.ReLU(), nn.Linear(48, 10)).requires_grad_(False)
        self.down = nn.Parameter(torch.randn(4, 64) * 0.1)
        self.up = nn.Parameter(torch.zeros(48, 4))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = x.flatten(1)
        hidden = self.base[0](x) + x @ self.down.T @ self.up.T
        return self.base[2](functional.relu(hidden))


@cache
def houses() -> Rows:
    x, y, _, _ = boston_housing()
    return {"x": np.asarray(x, np.float32), "y": np.asarray(y, np.float32)}


@cache
def digits() -> Rows:
    images, labels = load_digits(return_X_y=True)
    return {"x": (images / 16).reshape(-1, 1, 8, 8).astype(np.float32), "y": labels.astype(np.int64)}


@cache
def large_digits() -> Rows:
    """The same digits at the 28 x 28 of LeNet."""
    small = digits()
    tripled = np.kron(small["x"], np.ones((1, 1, 3, 3), np.float32))
    return {"x": np.pad(tripled, ((0, 0), (0, 0), (2, 2), (2, 2))), "y": small["y"]}


@cache
def letters() -> Rows:
    text = np.frombuffer(TEXT.read_bytes().lower(), np.uint8).astype(np.int64) % LETTERS
    rows = (len(text) - 1) // LENGTH
    cut = text[: rows * LENGTH].reshape(rows, LENGTH), text[1 : rows * LENGTH + 1].reshape(rows, LENGTH)
    return {"x": cut[0], "y": cut[1]}


def accuracy(output: torch.Tensor, target: torch.Tensor) -> torch.Tensor:
    return (output.argmax(1) == target).float().mean()


def case(
    make: Callable[[], nn.Module],
    rows: Callable[[], Rows],
    loss: Callable[..., torch.Tensor],
    optimizer: OptimizerSpec,
    **more: object,
) -> tuple[Callable[[], shoal.Task], Callable[[], Rows]]:
    local = {"batch_size": 8, "optimizer": optimizer, **more}

    def made() -> shoal.Task:
        torch.manual_seed(0)
        some = {name: array[:16] for name, array in rows().items()}
        metrics = {} if loss is functional.mse_loss else {"accuracy": accuracy}
        return shoal.Task("zoo", make(), loss, metrics, shoal.LocalPlan(**local), example=some)  # type: ignore[arg-type]

    return made, rows


CLASSES = functional.cross_entropy
ZOO = {
    "mlp-sgd": case(Mlp, houses, functional.mse_loss, shoal.sgd(1e-3)),
    "mlp-momentum": case(Mlp, houses, functional.mse_loss, shoal.sgd(1e-4, momentum=0.9, weight_decay=1e-3)),
    "mlp-nesterov": case(Mlp, houses, functional.mse_loss, shoal.sgd(1e-4, momentum=0.9, nesterov=True)),
    "mlp-dampened": case(Mlp, houses, functional.mse_loss, shoal.sgd(1e-4, momentum=0.9, dampening=0.3)),
    "mlp-adam": case(Mlp, houses, functional.mse_loss, shoal.adam(1e-3, weight_decay=1e-2)),
    "mlp-adamw": case(Mlp, houses, functional.mse_loss, shoal.adamw(1e-3)),
    "mlp-fedprox": case(Mlp, houses, functional.mse_loss, shoal.sgd(1e-3), proximal=0.5),
    "mlp-clipped": case(
        Mlp, houses, functional.mse_loss, shoal.sgd(1e-2), clip_gradient=1.0, per_step=shoal.Rate("step", 0.5, 10)
    ),
    "frozen": case(frozen_mlp, houses, functional.mse_loss, shoal.sgd(1e-3)),
    "lenet": case(LeNet, large_digits, CLASSES, shoal.sgd(0.05, momentum=0.9, weight_decay=1e-4)),
    "residual": case(Residual, digits, CLASSES, shoal.sgd(0.05, momentum=0.9)),
    "dropout": case(Dropped, digits, CLASSES, shoal.adam(3e-3)),
    "lstm": case(lambda: Recurrent(nn.LSTM), letters, CLASSES, shoal.adam(3e-3)),
    "gru": case(lambda: Recurrent(nn.GRU), letters, CLASSES, shoal.sgd(0.1, momentum=0.9)),
    "transformer": case(Transformer, letters, CLASSES, shoal.adamw(1e-3)),
    "transformer-dropout": case(lambda: Transformer(0.1), letters, CLASSES, shoal.sgd(0.1)),
    "adapter": case(Adapted, digits, CLASSES, shoal.adam(1e-2)),
}
"""By name: what makes the task, and what gives its rows."""


def task(name: str) -> shoal.Task:
    """Return a task of the zoo."""
    return ZOO[name][0]()


def batches(name: str, steps: int, size: int | None = None) -> Iterator[Rows]:
    """Yield batches of the task's rows, all of one size or of sizes that differ."""
    rows, first = ZOO[name][1](), 0
    count = len(rows["y"])
    for step in range(steps):
        many = size or SIZES[step % len(SIZES)]
        place = np.arange(first, first + many) % count
        yield {key: array[place] for key, array in rows.items()}
        first += many

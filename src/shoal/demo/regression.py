"""The demo's model: a small network that standardises raw rows itself, so that it predicts on them as they are.

What an owner installs and names with `--code`: `task(features)` gives the same code, and the golden step proves it.
"""

from collections.abc import Mapping

import numpy as np
import torch
from torch import nn

from shoal.algorithms.local import sgd
from shoal.algorithms.statistics import ColumnStatistics, Floats
from shoal.core.errors import DataError
from shoal.core.task import LocalPlan
from shoal.train.task import Task

ROLES = {"mean": "frozen", "deviation": "frozen", "target_mean": "frozen", "target_deviation": "frozen"}


class StandardisedMLP(nn.Module):
    """features-32-24-16-1 with ReLU between; takes raw float64 rows [n, features], gives float32 predictions [n].

    `mean` and `deviation` hold a number for each feature, or those of the features and the target behind them.
    """

    mean: torch.Tensor
    deviation: torch.Tensor
    target_mean: torch.Tensor
    target_deviation: torch.Tensor

    def __init__(self, mean: Floats, deviation: Floats, features: int, seed: int = 1) -> None:
        super().__init__()
        means = np.append(mean, np.zeros(features + 1 - len(mean)))
        deviations = np.append(deviation, np.ones(features + 1 - len(deviation)))
        self.register_buffer("mean", torch.tensor(means[:features]))
        self.register_buffer("deviation", torch.tensor(deviations[:features]))
        self.register_buffer("target_mean", torch.tensor(means[features]))
        self.register_buffer("target_deviation", torch.tensor(deviations[features]))
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            self.layers = nn.Sequential(
                nn.Linear(features, 32),
                nn.ReLU(),
                nn.Linear(32, 24),
                nn.ReLU(),
                nn.Linear(24, 16),
                nn.ReLU(),
                nn.Linear(16, 1),
            )

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Predict the target of raw rows. Large raw values cancel in float64; the network runs in float32."""
        standard = ((x - self.mean) / self.deviation).float()
        output: torch.Tensor = self.layers(standard).squeeze(-1)
        return output * self.target_deviation.float() + self.target_mean.float()


def loss(model: nn.Module, batch: Mapping[str, torch.Tensor]) -> torch.Tensor:
    """Return the mean squared error in units of the target's deviation."""
    error = model(batch["x"]) - batch["y"].float()
    squared: torch.Tensor = (error / model.get_buffer("target_deviation").float()) ** 2
    return squared.mean()


def mse(output: torch.Tensor, target: torch.Tensor) -> torch.Tensor:
    """Return the mean squared error in the target's own unit."""
    return nn.functional.mse_loss(output, target.float())


def task(
    features: int = 13,
    statistics: ColumnStatistics | None = None,
    lr: float = 1e-3,
    batch_size: int = 8,
    local_epochs: int = 1,
    shuffle: bool = True,
    seed: int = 1,
) -> Task:
    """Return the demo's task over a number of feature columns.

    `statistics` over the features standardises them; a further, last column is the target's and standardises that
    too. Without statistics rows are taken as they are: enough for owners, who receive the numbers with the task.
    """
    mean, deviation = standardisation(features, statistics)
    model = StandardisedMLP(mean, deviation, features, seed)
    rng = np.random.Generator(np.random.Philox(seed))
    x = mean[:features] + deviation[:features] * rng.standard_normal((8, features))
    y = rng.standard_normal(8) * model.target_deviation.item() + model.target_mean.item()
    return Task(
        name="regression",
        model=model,
        loss=loss,
        metrics={"mse": mse},
        local=LocalPlan(local_epochs, batch_size, sgd(lr), shuffle),
        example=(x, y),
        roles=ROLES,
    )


def standardisation(features: int, statistics: ColumnStatistics | None) -> tuple[Floats, Floats]:
    """Return what to subtract from each column and what to divide it by.

    Columns of two values (such as 0 and 1) and constant ones are left as they are. Raises DataError when there are
    statistics of another number of columns.
    """
    if statistics is None:
        return np.zeros(features), np.ones(features)
    if len(statistics.columns) not in (features, features + 1):
        raise DataError(
            f"statistics of {len(statistics.columns)} columns for {features} features",
            "measure the features, or the features and then the target",
        )
    raw = statistics.binary | (statistics.deviation == 0)
    return np.where(raw, 0.0, statistics.mean), np.where(raw, 1.0, statistics.deviation)

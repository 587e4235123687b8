"""pfl's federated averaging on a workload, in its simulated backend: one client after the other.

Install `torch==2.13.0 "pfl[pytorch]==0.6.0"` in a venv, and then `python simulate.py --workload w1 --pfl-venv VENV`.
"""

from itertools import pairwise
from typing import Any

import pfl
import torch
import workloads
from meter import Meter, cpu_seconds, run
from pfl.aggregate.simulate import SimulatedBackend
from pfl.aggregate.weighting import WeightByDatapoints
from pfl.algorithm.base import NNAlgorithmParams
from pfl.algorithm.federated_averaging import FederatedAveraging
from pfl.callback.base import TrainingProcessCallback
from pfl.data.federated_dataset import FederatedDataset
from pfl.data.pytorch import PyTorchTensorDataset
from pfl.hyperparam import NNTrainHyperParams
from pfl.metrics import Metrics, Weighted
from pfl.model.pytorch import PyTorchModel
from torch import nn
from torch.nn import functional

FAR = 10**9


class Measured(nn.Module):
    """A workload's model with the loss and the metrics that pfl asks a model for."""

    def __init__(self, name: str) -> None:
        super().__init__()
        self.net = network(name)
        self.measure = functional.mse_loss if name in workloads.MLP else functional.cross_entropy

    def loss(self, x: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
        return self.measure(self.net(x), y)

    def metrics(self, x: torch.Tensor, y: torch.Tensor, eval: bool = False) -> dict[str, Weighted]:
        del eval
        return {"loss": Weighted(self.loss(x, y).item() * len(x), len(x))}


def network(name: str) -> nn.Module:
    if name == "w2":
        first, second = [nn.Conv2d(1, 32, 3), nn.ReLU(), nn.MaxPool2d(2)], [nn.Conv2d(32, 64, 3), nn.ReLU()]
        net = nn.Sequential(*first, *second, nn.MaxPool2d(2), nn.Flatten(), nn.Linear(1600, 62))
    elif name == "w3":
        net = nn.Sequential(nn.Linear(784, 10))
    else:
        sizes = (13, 32, 24, 16)
        hidden = [layer for pair in pairwise(sizes) for layer in (nn.Linear(*pair), nn.ReLU())]
        net = nn.Sequential(*hidden, nn.Linear(16, 1))
    with torch.no_grad():
        for parameter, values in zip(net.parameters(), workloads.initial(name), strict=True):
            parameter.copy_(torch.from_numpy(values))
    return net


class Noted(TrainingProcessCallback):
    """Notes what had been spent after round 1 and at the end."""

    def __init__(self, meter: Meter) -> None:
        self.meter = meter
        self.spent = 0.0

    def after_central_iteration(
        self, aggregate_metrics: Metrics, model: Any, *, central_iteration: int
    ) -> tuple[bool, Metrics]:
        del aggregate_metrics, model
        if central_iteration == 0:  # pfl evaluates in it too
            self.meter.warmed_up()
        return False, Metrics()

    def on_train_end(self, *, model: Any) -> None:
        del model
        self.spent = cpu_seconds() - self.meter.warm


def measured(meter: Meter) -> None:
    torch.set_num_threads(1)
    name, work = meter.name, meter.work
    rows = workloads.data(work)
    tensors = [(torch.from_numpy(x), torch.from_numpy(y)) for x, y in rows]
    net = Measured(name)
    model = PyTorchModel(net, torch.optim.SGD, torch.optim.SGD(net.parameters(), lr=1.0))
    visits = iter([int(client) for cohort in workloads.cohorts(work, meter.rounds) for client in cohort])
    clients = FederatedDataset(
        lambda client: PyTorchTensorDataset(tensors[client], user_id=str(client)), lambda: next(visits)
    )
    noted = Noted(meter)
    FederatedAveraging().run(
        algorithm_params=NNAlgorithmParams(
            central_num_iterations=meter.rounds,
            evaluation_frequency=FAR,
            train_cohort_size=work.cohort,
            val_cohort_size=None,
        ),
        backend=SimulatedBackend(training_data=clients, val_data=clients, postprocessors=[WeightByDatapoints()]),
        model=model,
        model_train_params=NNTrainHyperParams(
            local_num_epochs=1, local_learning_rate=work.lr, local_batch_size=work.batch
        ),
        model_eval_params=None,
        callbacks=[noted],
        send_metrics_to_platform=False,
    )
    x, y = (torch.from_numpy(array) for array in workloads.test_rows(name, rows))
    with torch.no_grad():
        meter.tell("pfl", f"{pfl.__version__}, torch {torch.__version__}", float(net.loss(x, y)), noted.spent)


if __name__ == "__main__":
    run(measured)

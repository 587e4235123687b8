"""Federated learning for PyTorch: one model, trained on data that never leaves the devices that made it.

The public names, loaded when they are first used: importing shoal imports neither torch nor a web server.
"""

from importlib import import_module
from typing import Any

_PUBLIC = {
    "Bounds": "shoal.core.task",
    "Canary": "shoal.core.serving",
    "Conditions": "shoal.agent.conditions",
    "Coordinator": "shoal.researcher.coordinator",
    "DataSet": "shoal.remote.catalogue",
    "Device": "shoal.agent.device",
    "DeviceSettings": "shoal.agent.standing",
    "EarlyStop": "shoal.core.plan",
    "FederatedDataLoader": "shoal.remote.federated",
    "FederatedTensor": "shoal.remote.federated",
    "LocalPlan": "shoal.core.task",
    "Population": "shoal.simulation.population",
    "Rate": "shoal.core.rate",
    "Retention": "shoal.agent.examples",
    "Role": "shoal.core.roles",
    "RoundPlan": "shoal.core.task",
    "Run": "shoal.researcher.run",
    "Schedule": "shoal.core.schedule",
    "Serving": "shoal.core.serving",
    "ShoalError": "shoal.core.errors",
    "Strategy": "shoal.algorithms.strategy",
    "Task": "shoal.train.task",
    "VirtualWorker": "shoal.remote.virtual",
    "adam": "shoal.algorithms.local",
    "adamw": "shoal.algorithms.local",
    "compare": "shoal.tracking.compare",
    "connect": "shoal.remote.connect",
    "connect_async": "shoal.remote.connect",
    "ditto": "shoal.algorithms.ditto",
    "fedadagrad": "shoal.algorithms.fedopt",
    "fedadam": "shoal.algorithms.fedopt",
    "fedasync": "shoal.algorithms.buffered",
    "fedavg": "shoal.algorithms.fedavg",
    "fedavgm": "shoal.algorithms.fedavgm",
    "fedbn": "shoal.algorithms.fedbn",
    "fedbuff": "shoal.algorithms.buffered",
    "feddyn": "shoal.algorithms.feddyn",
    "federated_avg": "shoal.remote.averaging",
    "fednova": "shoal.algorithms.fednova",
    "fedper": "shoal.algorithms.fedper",
    "fedprox": "shoal.algorithms.fedprox",
    "fedrep": "shoal.algorithms.fedrep",
    "fedyogi": "shoal.algorithms.fedopt",
    "qfedavg": "shoal.algorithms.qfedavg",
    "scaffold": "shoal.algorithms.scaffold",
    "get": "shoal.remote.sending",
    "get_async": "shoal.remote.sending",
    "record": "shoal.remote.recording",
    "search": "shoal.remote.worker",
    "send": "shoal.remote.sending",
    "sgd": "shoal.algorithms.local",
    "simulate": "shoal.simulation.simulate",
    "strategies": "shoal.algorithms.catalogue",
}
_MODULES = ("data", "plan", "testing", "tracking")

__all__ = [*_PUBLIC, *_MODULES]


def __getattr__(name: str) -> Any:
    if name in _PUBLIC:
        return getattr(import_module(_PUBLIC[name]), name)
    if name in _MODULES:
        return import_module(f"shoal.{name}")
    raise AttributeError(f"module 'shoal' has no attribute {name!r}; it offers {', '.join(__all__)}")


def __dir__() -> list[str]:
    return sorted(__all__)

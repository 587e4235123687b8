"""The public names are these, in the package and in its stub."""

import ast
import subprocess
import sys
from pathlib import Path

import shoal

PUBLIC = [
    "Bounds",
    "Canary",
    "Conditions",
    "Coordinator",
    "DataSet",
    "Device",
    "DeviceSettings",
    "EarlyStop",
    "FederatedDataLoader",
    "FederatedTensor",
    "LocalPlan",
    "Population",
    "Rate",
    "Retention",
    "Role",
    "RoundPlan",
    "Run",
    "Schedule",
    "Serving",
    "ShoalError",
    "Strategy",
    "Task",
    "VirtualWorker",
    "adam",
    "adamw",
    "compare",
    "connect",
    "connect_async",
    "data",
    "ditto",
    "fedadagrad",
    "fedadam",
    "fedasync",
    "fedavg",
    "fedavgm",
    "fedbn",
    "fedbuff",
    "feddyn",
    "federated_avg",
    "fednova",
    "fedper",
    "fedprox",
    "fedrep",
    "fedyogi",
    "get",
    "get_async",
    "plan",
    "qfedavg",
    "record",
    "scaffold",
    "search",
    "send",
    "sgd",
    "simulate",
    "strategies",
    "testing",
    "tracking",
]


def test_the_public_names() -> None:
    assert dir(shoal) == PUBLIC
    for name in PUBLIC:
        assert getattr(shoal, name) is not None


def test_the_stub_says_the_same() -> None:
    stub = ast.parse(Path(shoal.__file__).with_suffix(".pyi").read_text())
    imported = [alias.asname for node in stub.body if isinstance(node, ast.ImportFrom) for alias in node.names]
    assert sorted(filter(None, imported)) == PUBLIC


def test_importing_shoal_is_light() -> None:
    heavy = ("numpy", "torch", "fastapi", "httpx", "sqlalchemy")
    code = f"import shoal, sys; print([m for m in {heavy} if m in sys.modules])"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"

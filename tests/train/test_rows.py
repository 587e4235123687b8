"""What a task asks of rows, and where it trains."""

import numpy as np
import pytest
import torch
from torch import nn
from torch.nn import functional

from shoal.core.errors import ConfigurationError, SchemaMismatch, TaskError
from shoal.core.schema import RowSchema
from shoal.train.device import seen, torch_device
from shoal.train.provenance import code_digest
from shoal.train.rows import row_schema
from shoal.train.task import Task

X = np.random.default_rng(0).standard_normal((6, 3)).astype(np.float32)
LABELS = np.array([0, 1, 2, 3, 0, 1])


def task(loss=functional.cross_entropy, example=(X, LABELS), **changes) -> Task:
    return Task("t", nn.Sequential(nn.Linear(3, 4), nn.Dropout(0.5)), loss, example=example, **changes)


def test_a_schema_tells_dtypes_and_shapes_of_rows():
    ratings = {"user": LABELS, "item": np.stack([LABELS, LABELS], 1), "weight": X[:, 0]}
    made = row_schema(task(lambda model, batch: 0, ratings))
    assert made == {
        "user": RowSchema("int64"),
        "item": RowSchema("int64", (2,)),
        "weight": RowSchema("float32"),
    }


@pytest.mark.parametrize("loss", [functional.cross_entropy, nn.CrossEntropyLoss(), nn.NLLLoss()])
def test_the_classes_of_a_cross_entropy_are_a_range(loss):
    assert row_schema(task(loss))["y"] == RowSchema("int64", (), 0, 3)


def test_an_ignored_class_and_declared_ranges_count():
    assert row_schema(task(nn.CrossEntropyLoss(ignore_index=-1)))["y"] == RowSchema("int64", (), -1, 3)
    assert row_schema(task(ranges={"y": (0, 9)}))["y"].high == 9
    counts = (X, np.array([50, 0, 3, 9, 1, 1]))
    assert row_schema(task(lambda output, target: output.mean(), counts))["y"].bounded is False


def test_the_model_keeps_its_mode():
    made = task()
    made.model.train()
    row_schema(made)
    assert all(module.training for module in made.model.modules())


def test_ranges_are_of_arrays_that_there_are():
    with pytest.raises(TaskError, match=r"declares a range of 'yy'.*did you mean 'y'"):
        row_schema(task(ranges={"yy": (0, 1)}))


def test_the_researchers_own_rows_must_fit_too():
    with pytest.raises(SchemaMismatch, match="'y' holds 3 in 1 of 6 rows"):
        row_schema(task(ranges={"y": (0, 2)}))
    with pytest.raises(SchemaMismatch, match=r"rows of shape \(2,\)"):
        row_schema(task(test=(X[:, :2], LABELS)))


def test_a_device_that_torch_lacks_is_refused_with_those_that_it_sees():
    assert torch_device("cpu") == torch.device("cpu")
    absent = f"cuda:{torch.cuda.device_count()}"
    with pytest.raises(ConfigurationError, match=f"device '{absent}' cannot be used") as refused:
        torch_device(absent)
    assert f"sees {', '.join(seen())} here" in refused.value.fix
    with pytest.raises(ConfigurationError, match="'gpu'"):
        torch_device("gpu")


def first(output: torch.Tensor, target: torch.Tensor) -> torch.Tensor:
    return (output - target).abs().mean()


def second(output: torch.Tensor, target: torch.Tensor) -> torch.Tensor:
    return (output - target).square().mean()


def test_the_digest_of_code_follows_its_source():
    assert code_digest(task(first)) == code_digest(task(first))
    assert code_digest(task(first)) != code_digest(task(second))
    assert code_digest(task(first)) != code_digest(task(first, metrics={"again": second}))

"""What cannot be a plan is refused with the operator, the module and the line, and the way that is left."""

import inspect
from collections.abc import Callable
from dataclasses import replace

import numpy as np
import pytest
import torch
from torch import nn
from torch.nn import functional

import shoal
import shoal.plan
from shoal.core.errors import NotExportable

Step = Callable[[torch.Tensor], torch.Tensor]
ROWS = np.random.default_rng(0).normal(size=(16, 4))


class Net(nn.Module):
    """Two layers, and in the middle whatever is tried."""

    def __init__(self, middle: Step, dtype: torch.dtype = torch.float32) -> None:
        super().__init__()
        self.first = nn.Linear(4, 4, dtype=dtype)
        self.tried = Tried(middle)
        self.last = nn.Linear(4, 1, dtype=dtype)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.last(self.tried(self.first(x))).squeeze(-1)


class Tried(nn.Module):
    def __init__(self, middle: Step) -> None:
        super().__init__()
        self.middle = middle

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.middle(x)


class ByNumpy(torch.autograd.Function):
    @staticmethod
    def forward(ctx, x):
        ctx.save_for_backward(x)
        return torch.from_numpy(np.tanh(x.detach().numpy()))

    @staticmethod
    def backward(ctx, grad):
        return grad * (1 - torch.tanh(ctx.saved_tensors[0]) ** 2)


class ByTorch(torch.autograd.Function):
    @staticmethod
    def forward(ctx, x):
        ctx.save_for_backward(x)
        return torch.tanh(x)

    @staticmethod
    def backward(ctx, grad):
        return grad * (1 - torch.tanh(ctx.saved_tensors[0]) ** 2)


def branch(x: torch.Tensor) -> torch.Tensor:
    return x if x.sum() > 0 else -x


def loop(x: torch.Tensor) -> torch.Tensor:
    for _ in range(int(x.detach().abs().sum())):
        x = x * 0.9
    return x


def masked(x: torch.Tensor) -> torch.Tensor:
    return x + x[x[:, 0] > 0].sum()


def places(x: torch.Tensor) -> torch.Tensor:
    return x + x.nonzero().sum()


def spectrum(x: torch.Tensor) -> torch.Tensor:
    return torch.fft.fft(x).real


def noisy(x: torch.Tensor) -> torch.Tensor:
    return x + torch.randn_like(x)


def widened(x: torch.Tensor) -> torch.Tensor:
    return functional.conv_transpose1d(x[:, None], torch.ones(1, 1, 3), padding=1)[:, 0]


def wide(x: torch.Tensor) -> torch.Tensor:
    return functional.conv1d(x[:, None], torch.ones(1, 1, 3, dtype=x.dtype), padding=1)[:, 0]


def task(middle: Step, dtype: torch.dtype = torch.float32) -> shoal.Task:
    torch.manual_seed(0)
    x = ROWS.astype(str(dtype).removeprefix("torch."))
    return shoal.Task("tried", Net(middle, dtype), functional.mse_loss, example=(x, x[:, 0].copy()))


@pytest.mark.parametrize(
    ("middle", "dtype", "said", "way"),
    [
        (branch, torch.float32, "aten._local_scalar_dense", "torch.where"),
        (loop, torch.float32, "aten._local_scalar_dense", "plan=False"),
        (masked, torch.float32, "operator aten.index.Tensor", "plan=False"),
        (places, torch.float32, "operator aten.nonzero", "--no-plan"),
        (spectrum, torch.float32, "operator aten._fft_r2c", "plan=False"),
        (noisy, torch.float32, "operator aten.randn_like", "dropout"),
        (widened, torch.float32, "backward pass of a transposed convolution", "interpolation"),
        (wide, torch.float64, "implementation for Conv.* aten.convolution", "plan=False"),
    ],
)
def test_what_cannot_be_exported_says_where_it_is(middle: Step, dtype: torch.dtype, said: str, way: str) -> None:
    with pytest.raises(NotExportable, match=said) as raised:
        shoal.plan.export(task(middle, dtype))
    lines, first = inspect.getsourcelines(middle)
    assert f"in module 'tried' at {__file__}:" in raised.value.problem
    line = int(raised.value.problem.split(f"{__file__}:")[1].split()[0].rstrip("'"))
    assert first < line < first + len(lines)
    assert way in raised.value.fix


def test_numbers_that_torch_did_not_compute_are_never_taken_for_constants() -> None:
    with pytest.raises(NotExportable, match=r"not computed by torch") as raised:
        shoal.plan.export(task(ByNumpy.apply))
    assert f"in module 'tried' at {__file__}:" in raised.value.problem
    assert "plan=False" in raised.value.fix


def test_a_gradient_of_ones_own_is_exported() -> None:
    assert "Tanh" in shoal.plan.export(task(ByTorch.apply)).manifest.graphs["train"].operators


def test_double_precision_is_exported_where_the_runtime_has_it() -> None:
    plan = shoal.plan.export(task(torch.tanh, torch.float64))
    assert {entry.dtype for entry in plan.manifest.arrays} == {"float64"}


def test_a_model_that_treats_rows_unalike_is_for_one_batch_size() -> None:
    def grouped(x: torch.Tensor) -> torch.Tensor:
        return x - x.reshape(-1, 8, 4).mean(1, keepdim=True).expand(-1, 8, 4).reshape(-1, 4)

    made = replace(task(grouped), local=shoal.LocalPlan(batch_size=8))
    plan = shoal.plan.export(made)
    assert plan.manifest.rows == 8
    assert plan.predict({k: v.detach().numpy() for k, v in made.model.named_parameters()}, ROWS).shape == (16,)


def test_a_metric_that_cannot_be_exported_is_named_and_left_out() -> None:
    def median(output: torch.Tensor, target: torch.Tensor) -> torch.Tensor:
        return (output - target).abs().quantile(0.5)

    def error(output: torch.Tensor, target: torch.Tensor) -> torch.Tensor:
        return (output - target).abs().mean()

    made = task(torch.tanh)
    metrics = {"median": median, "error": error}
    plan = shoal.plan.export(shoal.Task("t", made.model, functional.mse_loss, metrics, example=made.example))
    assert list(plan.manifest.unmeasured) == ["median"]
    assert f"at {__file__}:" in plan.manifest.unmeasured["median"]
    assert plan.manifest.graphs["evaluate"].outputs == ("measure/loss", "measure/error")

"""torch beyond its documented interface: in one file, and on these versions of torch it was seen to work."""

import re
from pathlib import Path

import pytest
import torch
from torch import nn

from shoal.plan import private

SEEN = ("2.13.0",)
"""Versions of torch on which the tests of this folder passed; add one when they do."""

PLAN = Path(private.__file__).parent


def test_this_torch_is_one_that_was_tried() -> None:
    assert torch.__version__.split("+")[0] in SEEN, "run tests/plan, and name this version when all pass"


def test_private_names_of_torch_are_in_one_file() -> None:
    used = re.compile(r"torch(\.\w+)*\._[a-z]|torch\.fx|torch\.utils\.weak")
    found = {path.name for path in PLAN.rglob("*.py") if used.search(path.read_text())}
    assert found == {"private.py"}


def test_a_mode_sees_operators_below_autograd() -> None:
    seen = []

    class Seeing(private.DispatchMode):
        def __torch_dispatch__(self, func, types, args=(), kwargs=None):
            seen.append(str(func))
            return func(*args, **(kwargs or {}))

    x = torch.ones(3, requires_grad=True)
    with Seeing():
        torch.autograd.grad((x * x).sum(), [x])
    assert {"aten.mul.Tensor", "aten.sum.default", "aten.expand.default"} <= set(seen)


def test_tensors_are_keys_by_themselves() -> None:
    known = private.by_tensor()
    x = torch.ones(2)
    known[x] = "x"
    assert known.get(x) == "x"
    assert known.get(torch.ones(2)) is None
    del x
    assert len(known) == 0


def test_leaves_of_what_a_model_returns() -> None:
    assert private.leaves([1, {"a": 2, "b": (3,)}]) == [1, 2, 3]


def test_layers_become_operators_that_can_be_taken_apart() -> None:
    table = private.core_decompositions()
    aten = torch.ops.aten
    assert {aten.native_layer_norm.default, aten.gelu.default, aten.silu.default} <= set(table)
    seen = set()

    class Seeing(private.DispatchMode):
        def __torch_dispatch__(self, func, types, args=(), kwargs=None):
            seen.add(str(func))
            return func(*args, **(kwargs or {}))

    layer = nn.TransformerEncoderLayer(8, 2, 16, batch_first=True)
    mask = nn.Transformer.generate_square_subsequent_mask(4)
    with private.plain_operators(), Seeing():
        layer(torch.ones(2, 4, 8), src_mask=mask)
        nn.LSTM(8, 8)(torch.ones(4, 2, 8))
    assert not any("attention" in name or "mkldnn" in name for name in seen)
    assert torch.backends.mkldnn.enabled
    assert torch.backends.mha.get_fastpath_enabled()


@pytest.mark.slow
@pytest.mark.processes
def test_an_export_does_not_import_the_compiler(tmp_path: Path) -> None:
    import subprocess
    import sys

    script = tmp_path / "export.py"
    script.write_text(EXPORT)
    done = subprocess.run([sys.executable, str(script)], capture_output=True, text=True, check=True, timeout=120)
    assert done.stdout.split() == ["True", "False"]


EXPORT = """
import sys
import numpy as np
from torch import nn
from torch.nn.functional import mse_loss
import shoal, shoal.plan
model, rows = nn.Sequential(nn.Linear(3, 2), nn.GELU(), nn.Linear(2, 1)), np.ones((8, 3), np.float32)
plan = shoal.plan.export(shoal.Task("t", model, mse_loss, example=(rows, rows[:, :1])))
print(plan.digest != "", "torch._dynamo" in sys.modules)
"""

import subprocess
import sys

import pytest
import torch
from torch import nn
from torch.func import grad
from torch.nn.functional import mse_loss

from shoal.train.startup import light_calls

ROUND = """
import sys
import numpy as np
from torch import nn
from torch.nn.functional import mse_loss
import shoal
clients = [(np.ones((4, 3), np.float32), np.ones((4, 1), np.float32))] * 3
shoal.simulate(shoal.Task("t", nn.Linear(3, 1), mse_loss), clients, rounds=1, trainer="vmapped")
print("torch._dynamo" in sys.modules)
"""


def test_gradients_are_those_of_torch_and_torch_is_as_before():
    model = nn.Linear(3, 1)
    x, y = torch.ones(4, 3), torch.zeros(4, 1)

    def loss(weight: torch.Tensor) -> torch.Tensor:
        return mse_loss(torch.func.functional_call(model, {"weight": weight}, (x,)), y)

    before = "_dynamo" in vars(torch)
    with light_calls():
        light = grad(loss)(model.weight.detach())
    assert ("_dynamo" in vars(torch)) == before
    assert torch.equal(light, grad(loss)(model.weight.detach()))


@pytest.mark.processes
@pytest.mark.skipif(not torch.__version__.startswith("2.13.0"), reason="another torch may import more")
def test_a_round_of_many_clients_at_once_does_not_import_the_compiler():
    done = subprocess.run([sys.executable, "-c", ROUND], capture_output=True, text=True, check=True)
    assert done.stdout.split() == ["False"]

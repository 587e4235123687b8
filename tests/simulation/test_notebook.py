"""A simulation in a real notebook: its model is defined in a cell, and an event loop runs already."""

import os

import pytest

CELLS = [
    """
import asyncio
import numpy as np
from torch import nn
from torch.nn.functional import mse_loss
import shoal

class Net(nn.Module):
    def __init__(self):
        super().__init__()
        self.head = nn.Linear(3, 1)

    def forward(self, x):
        return self.head(x)

assert asyncio.get_running_loop().is_running()
x = np.random.default_rng(0).standard_normal((60, 3)).astype(np.float32)
y = x.sum(axis=1, keepdims=True)
clients = shoal.data.iid(x, y, 6)
task = shoal.Task("line", Net(), mse_loss, local=shoal.LocalPlan(batch_size=5, optimizer=shoal.sgd(0.1)))
""",
    """
run = shoal.simulate(task, clients, rounds=5, cohort=4, trainer="vmapped", chunk=2, seed=1)
two = shoal.simulate(task, clients, rounds=5, cohort=4, trainer="vmapped", chunk=2, seed=1, workers=2, show=False)
assert [v.digest for v in run.versions] == [v.digest for v in two.versions]
assert run.history[-1].loss < run.history[0].loss
run.history
""",
    "run.history.to_pandas()['round'].tolist()",
]


@pytest.mark.processes
def test_a_notebook_with_a_model_of_its_own():
    if os.environ.get("CI") != "true":
        pytest.importorskip("nbclient")
    import nbformat
    from nbclient import NotebookClient

    notebook = nbformat.v4.new_notebook(cells=[nbformat.v4.new_code_cell(cell) for cell in CELLS])
    NotebookClient(notebook, timeout=200, kernel_name="python3").execute()
    bar, table = notebook.cells[1].outputs
    assert bar.data["text/html"].startswith('<progress value="5" max="5"></progress> 5/5')
    assert table.data["text/html"].count("<tr>") == 6
    assert notebook.cells[2].outputs[0].data["text/plain"] == "[1, 2, 3, 4, 5]"

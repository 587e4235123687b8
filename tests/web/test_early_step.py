"""The page's hand-made training step against torch's autograd and optimizer."""

import numpy as np
import onnxruntime
import pytest
import torch

from shoal.algorithms.local import sgd
from shoal.data import boston_table, split
from shoal.data.boston import TARGET
from shoal.demo import regression
from shoal.train.arrays import describe, read_arrays
from shoal.train.golden import golden_step
from shoal.train.objective import objective
from tests.web.early import make_step

LR = 0.05
TRAIN, _ = split(boston_table())


@pytest.fixture(scope="module")
def session() -> onnxruntime.InferenceSession:
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    return onnxruntime.InferenceSession(make_step().build().SerializeToString(), options, ["CPUExecutionProvider"])


def standardising() -> regression.StandardisedMLP:
    mean, deviation = TRAIN.values.mean(axis=0), TRAIN.values.std(axis=0)
    last = TRAIN.columns.index(TARGET)
    order = [*np.delete(np.arange(14), last), last]
    return regression.StandardisedMLP(mean[order], deviation[order], 13)


@pytest.mark.parametrize("rows", [1, 6, 8, 404])
def test_one_step_gives_torchs_loss_and_arrays(session, rows):
    torch.set_num_threads(1)
    model = standardising()
    batch = {"x": TRAIN.features(TARGET)[:rows], "y": TRAIN.target(TARGET)[:rows]}
    arrays = describe(model, regression.ROLES)
    before = read_arrays(model, arrays)
    names = [output.name for output in session.get_outputs()]
    got = dict(zip(names, session.run(names, {**before, **batch, "lr": np.array(LR, np.float32)}), strict=True))

    expected = golden_step(model, objective(regression.loss), sgd(LR), arrays, batch)
    assert got["loss"] == pytest.approx(expected["loss"], rel=1e-5)
    trained = [name for name in before if f"delta/{name}" in expected]
    assert set(names) == {"loss", *(f"after/{name}" for name in trained)}
    for name in trained:
        moved = got[f"after/{name}"] - before[name]
        largest = np.abs(expected[f"delta/{name}"]).max()
        assert largest > 0
        np.testing.assert_allclose(moved, expected[f"delta/{name}"], rtol=0, atol=1e-5 * largest + 1e-7)

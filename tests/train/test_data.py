import numpy as np
import pytest
import torch
from torch.utils.data import DataLoader, Dataset, IterableDataset, TensorDataset

from shoal.core.errors import DataError, NoRows
from shoal.train.data import client_data

X, Y = np.arange(10.0, dtype=np.float32).reshape(5, 2), np.arange(5)


class Pairs(Dataset):
    def __len__(self) -> int:
        return 5

    def __getitem__(self, index: int) -> dict[str, object]:
        return {"x": torch.from_numpy(X[index]), "y": int(Y[index])}


class Stream(IterableDataset):
    def __iter__(self):
        return iter(zip(X, Y, strict=True))


TENSORS = TensorDataset(torch.from_numpy(X), torch.from_numpy(Y))


@pytest.mark.parametrize(
    "source",
    [
        (X, Y),
        [torch.from_numpy(X), torch.from_numpy(Y).requires_grad_(False)],
        {"x": X, "y": Y},
        TENSORS,
        Pairs(),
        Stream(),
        DataLoader(TENSORS, batch_size=2),
    ],
    ids=["pair", "tensors", "dict", "tensor dataset", "dataset of dicts", "stream", "loader"],
)
def test_every_form_gives_the_same_arrays(source):
    data = client_data("bob", source)
    assert data.rows == 5
    assert data.arrays["x"].dtype == np.float32
    np.testing.assert_array_equal(data.arrays["x"], X)
    np.testing.assert_array_equal(data.arrays["y"], Y)


@pytest.mark.parametrize(
    ("source", "kind", "says"),
    [
        ((X, Y[:4]), DataError, "'x' has 5 rows, 'y' has 4"),
        ((X[:0], Y[:0]), NoRows, "'bob' has no examples"),
        ({}, NoRows, "'bob' has no examples"),
        (TensorDataset(torch.zeros(0, 2), torch.zeros(0)), NoRows, "'bob' has no examples"),
        ((X, np.float32(1)), DataError, "'y' is a single number"),
        ((X, np.array(list("abcde"))), DataError, "dtype <U1"),
        ((X, torch.zeros(5, dtype=torch.bfloat16)), DataError, "float()"),
        ("rows.csv", DataError, "type str"),
    ],
)
def test_data_that_cannot_be_used_are_refused(source, kind, says):
    with pytest.raises(kind, match=says.replace("(", r"\(").replace(")", r"\)")):
        client_data("bob", source)

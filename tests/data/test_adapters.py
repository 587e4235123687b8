import os

import numpy as np
import pytest
import torch
from torch.utils.data import Dataset, TensorDataset

import shoal
from shoal.core.errors import ConfigurationError, DataError, NoRows
from shoal.core.optional import installed


def table():
    pandas = pytest.importorskip("pandas")
    return pandas.DataFrame({"a": [1, 2, 3], "b": [0.5, 1.5, 2.5], "who": ["ann", "bob", "ann"], "label": [0, 1, 1]})


@pytest.mark.slow
def test_a_data_frame_becomes_arrays_and_a_partition_by_owner():
    x, y = shoal.data.from_pandas(table(), "label", features=["a", "b"])
    np.testing.assert_array_equal(x, np.array([[1, 0.5], [2, 1.5], [3, 2.5]], np.float32))
    assert (x.dtype, y.dtype, y.tolist()) == (np.float32, np.int64, [0, 1, 1])
    owners = shoal.data.by_owner(table(), "label", "who")
    assert {name: y.tolist() for name, (_, y) in owners.items()} == {"ann": [0, 1], "bob": [1]}
    _, regression = shoal.data.from_pandas(table(), "b", features=["a"])
    assert (regression.dtype, regression.shape) == (np.float32, (3, 1))
    with pytest.raises(DataError, match="column 'who'"):
        shoal.data.from_pandas(table(), "label")
    with pytest.raises(DataError, match=r"no column 'lable'.*did you mean 'label'"):
        shoal.data.from_pandas(table(), "lable")


def test_torch_datasets_are_read_once():
    x, y = torch.arange(6.0).reshape(3, 2), torch.tensor([0, 1, 0])
    given_x, given_y = shoal.data.from_dataset(TensorDataset(x, y))
    np.testing.assert_array_equal(given_x, x)
    np.testing.assert_array_equal(given_y, y)

    class Empty(Dataset[tuple[float, float]]):
        def __len__(self) -> int:
            return 0

    with pytest.raises(NoRows):
        shoal.data.from_dataset(Empty())


@pytest.mark.processes
def test_hugging_face_datasets_give_two_columns():
    if os.environ.get("CI") != "true":
        pytest.importorskip("datasets")
    import datasets

    given = datasets.Dataset.from_dict({"pixels": [[1.0, 2.0], [3.0, 4.0]], "label": [1, 0]})
    x, y = shoal.data.from_huggingface(given, "pixels", "label")
    np.testing.assert_array_equal(x, [[1, 2], [3, 4]])
    np.testing.assert_array_equal(y, [1, 0])
    with pytest.raises(DataError, match="no column 'pixel'"):
        shoal.data.from_huggingface(given, "pixel", "label")


@pytest.mark.slow
@pytest.mark.parametrize(
    ("load", "rows", "shape", "dtype"),
    [
        ("digits", 1797, (1, 8, 8), np.int64),
        ("breast_cancer", 569, (30,), np.int64),
        ("diabetes", 442, (10,), np.float32),
    ],
)
def test_bundled_data_sets(load: str, rows: int, shape: tuple[int, ...], dtype: type):
    x, y = vars(shoal.data)[load]()
    assert (x.shape, x.dtype, y.dtype, len(y)) == ((rows, *shape), np.float32, dtype, rows)
    assert np.isfinite(x).all()


def test_a_package_that_is_not_there_says_how_to_install_it():
    with pytest.raises(ConfigurationError, match="pip install scikit-lern"):
        installed("sklern.datasets", "scikit-lern")

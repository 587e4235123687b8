"""Files of an owner become data sets, or an error says why not."""

import numpy as np
import pytest
import torch

from shoal.core.errors import ConfigurationError, DataError, SchemaMismatch
from shoal.remote import owned
from shoal.remote.catalogue import Catalogue

ROWS = "rooms,age,price\n6,65,24\n6.4,78,21\n7.1,61,34\n"


@pytest.fixture
def file(tmp_path):
    path = tmp_path / "houses.csv"
    path.write_text(ROWS)
    return path


def test_a_table(file):
    found = owned.read(file, "price")
    assert (found.name, found.tags, found.rows) == ("houses", ("#houses",), 3)
    assert torch.equal(found.array("data"), torch.tensor([[6.0, 65.0], [6.4, 78.0], [7.1, 61.0]]))
    assert torch.equal(found.array("target"), torch.tensor([[24.0], [21.0], [34.0]]))
    assert list(owned.read(file).arrays) == ["data"]


def test_arrays(tmp_path):
    np.savez(tmp_path / "digits.npz", data=np.zeros((5, 8, 8), np.float32), target=np.arange(5))
    found = owned.read(tmp_path / "digits.npz")
    assert (found.rows, found.entry().arrays["target"].dtype) == (5, "int64")
    assert found.mock("data").shape == (5, 8, 8)
    np.savez(tmp_path / "objects.npz", data=np.array([{}], dtype=object))
    with pytest.raises(DataError, match=r"objects\.npz"):
        owned.read(tmp_path / "objects.npz")


@pytest.mark.parametrize(
    ("text", "error", "said"),
    [
        ("colour = 'red'", ConfigurationError, "colour"),
        ("mock = 'rows'", ConfigurationError, "mock"),
        ("[columns.age]\nlow = 0", ConfigurationError, "high"),
        ("[columns.age]\nlow = 0\nhigh = 70", SchemaMismatch, "1 of 3 rows have a 'age' outside 0 to 70"),
        ("[columns.colour]\nlow = 0\nhigh = 70", DataError, "colour"),
        ("target = 'cost'", DataError, "cost"),
        ("not toml", ConfigurationError, "houses.toml"),
    ],
)
def test_what_is_wrong_is_said(file, text, error, said):
    file.with_suffix(".toml").write_text(text)
    with pytest.raises(error, match=said):
        owned.read(file)


def test_what_is_no_number_is_in_no_range(tmp_path):
    table = owned.Table(("a",), np.array([[1.0], [np.nan]]))
    with pytest.raises(SchemaMismatch, match="1 of 2 rows"):
        owned._check(tmp_path, table, {"a": owned.Range(0, 2)})


def test_two_files_of_one_name_are_refused(file, tmp_path):
    (tmp_path / "other").mkdir()
    other = tmp_path / "other" / file.name
    other.write_text(ROWS)
    with pytest.raises(ConfigurationError, match="two of one name"):
        Catalogue([owned.read(file), owned.read(other)])


def test_mock_rows_are_made_of_the_schema_alone(tmp_path):
    drawn = []
    for scale in (1, 50):
        path = tmp_path / "houses.csv"
        path.write_text("a,b\n" + "".join(f"{at * scale},{at}\n" for at in range(1, 21)))
        path.with_suffix(".toml").write_text("[columns.a]\nlow = 0\nhigh = 1000")
        drawn.append(owned.read(path).mock("data"))
    assert torch.equal(*drawn)
    assert drawn[0].shape == (10, 2)
    assert ((drawn[0][:, 0] >= 0) & (drawn[0][:, 0] <= 1000)).all()
    path.with_suffix(".toml").write_text("mock = 'columns'")
    real = owned.read(path)
    mock = real.mock("data")
    for at in range(2):
        assert set(mock[:, at].tolist()) <= set(real.array("data")[:, at].tolist())

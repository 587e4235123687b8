"""Who gets which rows."""

import numpy as np
import pytest

from shoal.core.errors import ConfigurationError, NoRows
from shoal.data import Table, boston_housing, read_csv, write_csv
from shoal.data.boston import TARGET
from shoal.demo.rows import dealt
from shoal.demo.run import run
from shoal.demo.screen import PlainScreen
from shoal.demo.settings import Settings


def test_owners_have_names():
    assert Settings(owners=2).names == ("bob", "alice")
    assert Settings(owners=7).names == ("bob", "alice", "carol", "dave", "eve", "owner6", "owner7")


def test_every_training_row_belongs_to_one_owner():
    rows = dealt(Settings(owners=2))
    x, y, x_test, _ = boston_housing()
    assert rows.target == TARGET
    assert [len(table.values) for table in rows.owners.values()] == [202, 202]
    np.testing.assert_array_equal(rows.arrays(rows.owners["bob"])["x"], x[0::2])
    np.testing.assert_array_equal(rows.arrays(rows.owners["alice"])["y"], y[1::2])
    np.testing.assert_array_equal(rows.arrays(rows.test)["x"], x_test)
    assert rows.features == 13
    assert rows.columns[-1] == TARGET


def test_each_owner_gets_a_file_of_its_own(tmp_path):
    rows = dealt(Settings(owners=3))
    for name in rows.owners:
        (tmp_path / name).mkdir()
    rows.write(tmp_path)
    np.testing.assert_array_equal(read_csv(tmp_path / "carol" / "rows.csv").values, rows.owners["carol"].values)


def test_owners_with_too_few_rows_are_refused_before_anything_starts(tmp_path):
    path = tmp_path / "small.csv"
    write_csv(path, Table(("a", "b"), np.arange(50.0).reshape(25, 2)))
    assert {len(table.values) for table in dealt(Settings(2, data=path, target="b")).owners.values()} == {10}
    with pytest.raises(NoRows, match="20 training rows for 3 owners leave 6"):
        dealt(Settings(3, data=path, target="b"))


def test_a_home_that_was_used_is_refused(tmp_path, capsys):
    (tmp_path / "server").mkdir()
    with pytest.raises(ConfigurationError, match="holds a federation already"):
        run(Settings(), tmp_path, tmp_path / "model", PlainScreen(capsys, "mse"))

import numpy as np
import pytest

from shoal.agent.data import ArrayData, TableData
from shoal.core.errors import DataError
from shoal.data.tables import Table

TABLE = Table(("age", "size", "kind"), np.array([[1.0, 2.0, 0.0], [3.0, 4.0, 1.0]]))


def test_columns_are_measured_in_the_order_of_the_task():
    measured = TableData(TABLE, "kind").measured(("kind", "age"))
    np.testing.assert_array_equal(measured, [[0.0, 1.0], [1.0, 3.0]])


def test_columns_that_are_not_there_or_come_twice_are_refused():
    data = TableData(TABLE, "kind")
    with pytest.raises(DataError, match=r"no column 'aeg'.*did you mean 'age'"):
        data.measured(("aeg",))
    with pytest.raises(DataError, match="ask for each one once"):
        data.measured(("age", "age"))
    with pytest.raises(DataError, match="from arrays with the columns"):
        ArrayData({"x": TABLE.values}).measured(("age",))


def test_an_unknown_target_is_refused_at_once():
    with pytest.raises(DataError, match="no column 'kin'"):
        TableData(TABLE, "kin")


def test_rows_take_the_dtypes_of_the_task():
    like = {"x": np.zeros((1, 2), np.float32), "y": np.zeros(1, np.int64)}
    examples = TableData(TABLE, "kind").examples(like)
    assert [examples[name].dtype.name for name in ("x", "y")] == ["float32", "int64"]
    assert examples["y"].tolist() == [0, 1]
    with pytest.raises(DataError, match=r"whole numbers \(int64\) as 'y'"):
        TableData(Table(("a", "b"), np.array([[1.0, 0.5]])), "b").examples(like)

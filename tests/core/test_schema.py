import numpy as np
import pytest

from shoal.core.errors import SchemaMismatch, TaskError
from shoal.core.schema import RowSchema, check_rows, columns, empty_batch, ranges

SCHEMA = {"x": RowSchema("float32", (2,), 0.0, 10.0), "y": RowSchema("int64", (), 0, 2)}
X = np.array([[0, 1], [2, 3], [4, 10]], np.float32)
Y = np.array([0, 1, 2])


def test_rows_that_fit_pass():
    check_rows(SCHEMA, {"x": X, "y": Y})
    check_rows(SCHEMA, {"x": X.astype(np.float64), "y": Y.astype(np.uint8)})
    check_rows({}, {"anything": Y})


@pytest.mark.parametrize(
    ("changed", "said"),
    [
        ({"x": X[:, :1]}, r"'x' has rows of shape \(1,\) \(3 rows\), the task asks for \(2,\)"),
        ({"x": X.astype(int)}, r"'x' has dtype int64 \(3 rows\), the task asks for decimal numbers"),
        ({"y": Y.astype(float)}, r"'y' has dtype float64 \(3 rows\), the task asks for whole numbers"),
        ({"y": np.array([0, 3, 7])}, r"'y' holds 3 in 2 of 3 rows, the task asks for 0 to 2"),
        ({"x": X * 2}, r"'x' at \[1\] holds 20 in 1 of 3 rows, the task asks for 0 to 10"),
        ({"x": np.where(X == 3, np.nan, X)}, r"'x' at \[1\] holds nan in 1 of 3 rows"),
        ({"z": Y}, r"have the arrays \['x', 'y', 'z'\], the task asks for \['x', 'y'\]"),
    ],
)
def test_what_does_not_fit_is_named_with_value_and_rows(changed, said):
    with pytest.raises(SchemaMismatch, match=said):
        check_rows(SCHEMA, {"x": X, "y": Y, **changed})


def test_columns_are_called_by_their_names():
    with pytest.raises(SchemaMismatch, match="column 'rooms' holds 20"):
        check_rows(SCHEMA, {"x": X * 2, "y": Y}, {"x": ("age", "rooms"), "y": ("price",)})
    with pytest.raises(SchemaMismatch, match="column 'price' holds 9 in 1 of 3 rows"):
        check_rows(SCHEMA, {"x": X, "y": np.array([0, 0, 9])}, {"x": ("age", "rooms"), "y": ("price",)})


def test_a_missing_array_is_named():
    with pytest.raises(SchemaMismatch, match=r"arrays \['x'\]"):
        check_rows(SCHEMA, {"x": X})


def test_ranges_are_by_column_for_short_rows_and_whole_for_others():
    schema = {"image": RowSchema("uint8", (4, 4)), "x": RowSchema("float32", (2,)), "y": RowSchema("int64")}
    images = np.arange(48, dtype=np.uint8).reshape(3, 4, 4)
    assert columns(schema) == ("image", "x[0]", "x[1]", "y")
    low, high = ranges(schema, {"image": images, "x": X, "y": Y})
    assert low.tolist() == [0, 0, 1, 0]
    assert high.tolist() == [47, 4, 10, 2]


def test_ranges_of_what_is_not_finite_are_refused():
    with pytest.raises(SchemaMismatch, match="'x' holds NaN or infinity in 1 of 3 rows"):
        ranges({"x": RowSchema("float32", (2,))}, {"x": np.where(X == 3, np.inf, X)})


def test_an_empty_batch_has_the_schemas_layout():
    batch = empty_batch(SCHEMA)
    assert [(array.shape, array.dtype.name) for array in batch.values()] == [((0, 2), "float32"), ((0,), "int64")]


@pytest.mark.parametrize("wrong", [("float23",), ("float32", (), 2.0, 1.0)])
def test_a_schema_that_means_nothing_is_refused(wrong):
    with pytest.raises(TaskError):
        RowSchema(*wrong)

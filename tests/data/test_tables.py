from pathlib import Path

import numpy as np
import pytest

from shoal.core.errors import DataError, NoRows, NotNumeric
from shoal.data import Table, boston_housing, boston_table, deal, read_csv, split, write_csv


@pytest.fixture
def csv(tmp_path: Path):
    def write(text: str | bytes) -> Path:
        path = tmp_path / "table.csv"
        path.write_bytes(text if isinstance(text, bytes) else text.encode())
        return path

    return write


def test_quotes_spaces_blank_lines_and_a_byte_order_mark_are_read(csv):
    table = read_csv(csv('\ufeff"a", b\r\n1, "2.5"\r\n\r\n-3,4e2\r\n'))
    assert table.columns == ("a", "b")
    assert table.values.tolist() == [[1.0, 2.5], [-3.0, 400.0]]


def test_a_first_line_of_counts_is_skipped(csv):
    assert read_csv(csv("2,2,,\na,b,c,d\n1,2,3,4\n")).values.tolist() == [[1, 2, 3, 4]]


@pytest.mark.parametrize("cell", ["many", "", "nan", "inf", "-Infinity"])
def test_a_cell_that_is_no_finite_number_is_named(csv, cell):
    path = csv(f"a,b\n1,2\n3,{cell}\n")
    with pytest.raises(NotNumeric) as error:
        read_csv(path)
    for part in (str(path), "line 3", "'b'", repr(cell)):
        assert part in error.value.problem


@pytest.mark.parametrize(
    ("text", "kind", "says"),
    [
        ("", NoRows, "empty"),
        ("a,b\n", NoRows, "no rows"),
        ("1,2\n3,4\n", DataError, "begins with numbers"),
        ("a,b\n1,2\n3\n", DataError, "line 3 has 1 cells, the header 2"),
        ("a;b\n1;2\n", DataError, "line 1 has ';' between its names.*commas between cells"),
        ("a\tb\n1\t2\n", DataError, "between its names"),
        ("a,a\n1,2\n", DataError, "its own name"),
        (b"a,b\n\xff\xfe,1\n", DataError, "UTF-8"),
    ],
)
def test_a_file_that_is_no_table_is_refused(csv, text, kind, says):
    with pytest.raises(kind, match=says):
        read_csv(csv(text))


def test_a_missing_file_is_named(tmp_path):
    with pytest.raises(DataError, match=r"absent\.csv: No such file"):
        read_csv(tmp_path / "absent.csv")


def test_an_unknown_target_suggests_the_near_column(csv):
    with pytest.raises(DataError, match="did you mean 'price'"):
        read_csv(csv("size,price\n1,2\n"), "prise")
    with pytest.raises(DataError, match="did you mean 'MEDV'"):
        boston_table().target("MEDB")


def test_what_is_written_reads_back_bit_for_bit(tmp_path):
    values = np.random.default_rng(1).standard_normal((20, 3)) * 10.0 ** np.arange(-100, 200, 100)
    write_csv(tmp_path / "t.csv", Table(("a", "b, c", 'd"'), values))
    table = read_csv(tmp_path / "t.csv")
    assert table.columns == ("a", "b, c", 'd"')
    assert table.values.tobytes() == values.tobytes()


def test_features_and_target_are_the_columns():
    table = Table(("a", "y", "b"), np.array([[1.0, 2.0, 3.0], [4.0, 5.0, 6.0]]))
    assert table.features("y").tolist() == [[1, 3], [4, 6]]
    assert table.target("y").tolist() == [2, 5]
    assert table.without("y").columns == ("a", "b")


def test_boston_housing_is_cut_as_keras_cuts_it():
    x_train, y_train, x_test, y_test = boston_housing()
    assert (x_train.shape, y_train.shape, x_test.shape, y_test.shape) == ((404, 13), (404,), (102, 13), (102,))
    assert x_train.dtype == np.float64
    # the first rows of keras.datasets.boston_housing with its default seed
    np.testing.assert_allclose(x_train[0, :6], [1.23247, 0.0, 8.14, 0.0, 0.538, 6.142])
    np.testing.assert_allclose(y_train[:3], [15.2, 42.3, 50.0])
    np.testing.assert_allclose(y_test[:3], [7.2, 18.8, 19.0])


def test_split_and_deal_lose_no_row():
    table = Table(("i",), np.arange(11.0)[:, None])
    train, test = split(table, 0.3)
    owners = deal(train, 3)
    assert [len(part.values) for part in (train, test)] == [7, 4]
    assert owners[1].values.tolist() == train.values[[1, 4]].tolist()
    everything = np.concatenate([test.values, *(owner.values for owner in owners)])
    assert sorted(everything.ravel()) == list(range(11))


@pytest.mark.parametrize(("owners", "kind"), [(0, DataError), (3, NoRows)])
def test_rows_cannot_be_dealt_to_no_one_or_to_too_many(owners, kind):
    with pytest.raises(kind):
        deal(Table(("i",), np.zeros((2, 1))), owners)


def test_a_split_leaves_neither_part_empty():
    with pytest.raises(NoRows):
        split(Table(("i",), np.zeros((1, 1))))

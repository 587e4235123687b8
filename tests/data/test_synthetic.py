import numpy as np
import pytest

from shoal.core.errors import ConfigurationError
from shoal.data import FemnistLike, ShakespeareLike


@pytest.mark.parametrize(
    "source", [FemnistLike(50, rows=30), ShakespeareLike(50, rows=30, length=10)], ids=lambda made: type(made).__name__
)
def test_a_client_is_a_function_of_seed_and_name(source: FemnistLike | ShakespeareLike):
    names = source.names[3:6]
    first, again = source.many(names), source.many(names[::-1])[::-1]
    for (x, y), (other_x, other_y), size in zip(first, again, source.sizes(names), strict=True):
        np.testing.assert_array_equal(x, other_x)
        np.testing.assert_array_equal(y, other_y)
        assert len(x) == len(y) == size
    assert not np.array_equal(first[0][0][:5], first[1][0][:5])
    other = type(source)(50, rows=30, seed=1)
    assert not np.array_equal(other.many(names)[0][1][:20], first[0][1][:20])


def test_writers_have_images_and_classes_of_femnist():
    (x, y), *_ = FemnistLike(2, rows=100).many(["writer-0"])
    assert (x.dtype, x.shape[1:], y.dtype) == (np.float32, (1, 28, 28), np.int64)
    assert 0 <= x.min() < 0.1 < 0.9 < x.max() <= 1
    assert 0 <= y.min() <= y.max() < 62


def test_images_of_a_class_are_more_alike_than_those_of_others_across_writers():
    rows = FemnistLike(2, rows=400).many(["writer-0", "writer-1"])
    means = [{int(c): x[y == c].mean(axis=0).ravel() for c in np.unique(y)} for x, y in rows]
    both = sorted(means[0].keys() & means[1].keys())
    distances = np.array([[np.linalg.norm(means[0][a] - means[1][b]) for b in both] for a in both])
    assert np.mean(distances.argmin(axis=1) == np.arange(len(both))) > 0.5


def test_roles_follow_one_language_with_habits_of_their_own():
    source = ShakespeareLike(2, rows=4000, length=1, habit=0.5)
    counts = []
    for x, y in source.many(source.names):
        table = np.zeros((80, 80))
        np.add.at(table, (x[:, 0], y), 1)
        counts.append(table[table.sum(axis=1) > 30])
        assert y.max() < 80
    assert all((table.max(axis=1) / table.sum(axis=1)).mean() > 0.1 for table in counts)  # not even


def test_a_row_is_followed_by_the_next_character():
    ((x, y),) = ShakespeareLike(1, rows=50, length=6).many(["role-0"])
    np.testing.assert_array_equal(x[1:, -1], y[:-1])
    np.testing.assert_array_equal(x[1:, :-1], x[:-1, 1:])


@pytest.mark.parametrize("wrong", [{"writers": 0}, {"rows": 0}])
def test_no_clients_and_no_rows_are_refused(wrong: dict[str, int]):
    with pytest.raises(ConfigurationError, match="give at least 1"):
        FemnistLike(**wrong)  # type: ignore[arg-type]
    with pytest.raises(ConfigurationError, match="habit"):
        ShakespeareLike(habit=2.0)

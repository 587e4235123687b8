"""Seeds are part of every result that was ever published: these values must never change."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from shoal.core.seeds import derive, deriving, permutation, permutations


@pytest.mark.parametrize(
    ("parts", "seed"),
    [
        ((), 707671343257750),
        ((7, 3, "ann"), 552907577393490),
        ((7, "3", "ann"), 2535914097723012),
        ((0, 1, "Zoë-λ"), 6823827166988384),
    ],
)
def test_known_seeds(parts, seed):
    assert derive(*parts) == seed


@given(st.lists(st.integers() | st.text(st.characters(exclude_categories=["Cs"]))))
def test_a_seed_is_an_integer_that_float64_holds(parts):
    assert 0 <= derive(*parts) < 2**53


def test_kind_order_and_boundaries_of_parts_matter():
    parts = [(1, 2), (2, 1), ("1", 2), (12,), ("1", "2"), ("12",), (1, 2, "")]
    assert len({derive(*each) for each in parts}) == len(parts)


def test_known_permutation():
    assert permutation(derive(7, 3, "ann"), 8).tolist() == [7, 0, 6, 1, 4, 2, 5, 3]


def test_permutation_is_numpys_philox():
    expected = np.arange(100)
    np.random.Generator(np.random.Philox(12345)).shuffle(expected)
    assert permutation(12345, 100).tolist() == expected.tolist()


@pytest.mark.parametrize("rows", [0, 1, 17])
def test_permutation_visits_every_row_once(rows):
    order = permutation(5, rows)
    assert sorted(order.tolist()) == list(range(rows))
    assert order.dtype == np.int64


@given(st.integers(0, 2**40), st.integers(1, 99), st.lists(st.text(st.characters(exclude_categories=["Cs"]))))
def test_deriving_is_derive_with_a_name_to_come(seed, number, names):
    assert [deriving(seed, number)(name) for name in names] == [derive(seed, number, name) for name in names]


SEEDS = st.integers(0, 2**53 - 1) | st.sampled_from([0, 1, 2**32 - 1, 2**32, 2**53 - 1])


@given(st.lists(st.tuples(SEEDS, st.integers(0, 70))))
def test_many_permutations_are_those_that_each_seed_gives(wanted):
    found = permutations([seed for seed, _ in wanted], [rows for _, rows in wanted])
    assert [order.tolist() for order in found] == [permutation(*each).tolist() for each in wanted]

"""The classes of errors, and the tree of them that is drawn at the top of their file."""

import pickle
import re

import pytest

from shoal.core import errors
from shoal.core.errors import RefusedUpdate, RequestError, ShoalError, every_error, from_code

OURS = [kind for kind in every_error() if kind.__module__ == errors.__name__]
NAMES = [kind.__name__ for kind in OURS]


def drawn() -> dict[str, tuple[str | None, int | None]]:
    """Read the tree in the docstring: name -> (parent, status if given)."""
    found: dict[str, tuple[str | None, int | None]] = {"ShoalError": (None, None)}
    path = ["ShoalError"]
    for indent, name, status in re.findall(r"^([│ ]*)[├└]── (\w+)\s+(\d{3})?", errors.__doc__ or "", re.MULTILINE):
        depth = len(indent) // 4 + 1
        path[depth:] = [name]
        found[name] = (path[depth - 1], int(status) if status else None)
    return found


def test_the_tree_draws_every_class_and_no_other():
    assert sorted(drawn()) == sorted(NAMES)


@pytest.mark.parametrize("kind", OURS, ids=NAMES)
def test_the_tree_draws_the_class_below_its_parent(kind):
    parent, status = drawn()[kind.__name__]
    if parent is not None:
        assert kind.__bases__ == (getattr(errors, parent),)
    if status is not None:
        assert kind.status == status


def test_every_kind_of_request_error_has_its_status_drawn():
    shown = {name for name, (_, status) in drawn().items() if status is not None}
    assert shown == {kind.__name__ for kind in RequestError.__subclasses__()}


def test_codes_are_unique_and_set_by_each_class():
    codes = [kind.__dict__["code"] for kind in OURS]
    assert len(set(codes)) == len(codes) == len(OURS) > 20


@pytest.mark.parametrize("kind", OURS, ids=NAMES)
def test_round_trip_by_code_and_by_pickle(kind):
    error = kind("array 'w' holds NaN", "lower the learning rate")
    for copy in (from_code(error.code, error.problem, error.fix), pickle.loads(pickle.dumps(error))):
        assert type(copy) is kind
        assert str(copy) == "array 'w' holds NaN: lower the learning rate"
        assert (copy.problem, copy.fix) == (error.problem, error.fix)


def test_an_unknown_code_is_the_base_class():
    error = from_code("from_the_future", "something new", "update this client")
    assert type(error) is ShoalError
    assert error.fix == "update this client"


def test_every_error_has_an_http_status():
    assert all(400 <= kind.status < 600 for kind in OURS)
    assert RefusedUpdate.status == 422

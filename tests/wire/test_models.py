from pathlib import Path

import numpy as np
import pytest

from shoal.core.errors import CorruptStore, TaskError
from shoal.core.roles import Role
from shoal.core.task import ArraySpec
from shoal.core.tree import digest, encode
from shoal.wire.models import check_digest, file_size, open_tree, read_tree

ARRAYS = {
    "w": ArraySpec((2, 3), "float32"),
    "empty": ArraySpec((0, 4), "float64"),
    "steps": ArraySpec((), "int64", Role.COUNTER),
}
TREE = {name: np.ones(spec.shape, spec.dtype) for name, spec in ARRAYS.items()}


def test_the_size_of_a_file_is_known_before_it_is_fetched():
    assert file_size(ARRAYS) == len(encode(TREE))
    assert file_size({}) == len(encode({}))


def test_a_file_of_just_these_arrays_is_read():
    read = read_tree(encode(TREE), ARRAYS)
    assert digest(read) == digest(TREE)


@pytest.mark.parametrize(
    ("name", "array"),
    [("w", np.ones((3, 2), np.float32)), ("w", np.ones((2, 3))), ("more", np.ones(1)), ("steps", None)],
)
def test_other_arrays_are_named(name: str, array: np.ndarray | None):
    tree = {**TREE, name: array}
    if array is None:
        del tree[name]
    with pytest.raises(TaskError, match=rf"arrays \['{name}'\] are not those"):
        read_tree(encode(tree), ARRAYS)


def test_a_file_is_read_one_array_at_a_time(tmp_path: Path):
    (tmp_path / "model").write_bytes(encode(TREE))
    tree = open_tree(tmp_path / "model", ARRAYS)
    assert sorted(tree) == sorted(ARRAYS)
    assert "w" in tree
    assert "v" not in tree
    assert digest(tree) == digest(TREE)
    with pytest.raises(TaskError, match=r"arrays \['v'\] are not those"):
        open_tree(tmp_path / "model", {**ARRAYS, "v": ArraySpec((1,), "float32")})


def test_bytes_with_another_digest_are_refused():
    data = encode(TREE)
    check_digest(digest(TREE), data)
    with pytest.raises(CorruptStore, match=f"{digest(TREE)} arrived as {len(data)} bytes"):
        check_digest(digest(TREE), data[:-1] + b"\x01")

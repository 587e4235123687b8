"""The canonical bytes of a tree, against the safetensors library as an independent reader."""

import hashlib
import json

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from safetensors.numpy import load

from shoal.core.errors import UnsupportedArray
from shoal.core.tree import DTYPES, WRITE_BYTES, Layered, digest, encode, header, layout, pieces

NAMES = st.text(st.characters(exclude_categories=["Cs"]), max_size=12).filter(lambda name: name != "__metadata__")
ARRAYS = st.sampled_from(list(DTYPES)).flatmap(
    lambda dtype: hnp.arrays(dtype, hnp.array_shapes(min_dims=0, max_dims=3, min_side=0, max_side=3))
)


def same(left, right):
    assert (left.dtype, left.shape, left.tobytes()) == (right.dtype, right.shape, right.tobytes())


@given(st.dictionaries(NAMES, ARRAYS, max_size=4))
def test_the_library_reads_what_we_write(tree):
    read = load(encode(tree))
    assert read.keys() == tree.keys()
    for name, array in tree.items():
        same(read[name], array)


@given(st.dictionaries(NAMES, ARRAYS, min_size=2, max_size=4), st.randoms(use_true_random=False))
def test_insertion_order_does_not_matter(tree, random):
    names = list(tree)
    random.shuffle(names)
    assert digest({name: tree[name] for name in names}) == digest(tree)


@pytest.mark.parametrize("dtype", DTYPES)
def test_every_dtype_with_its_edges(dtype):
    tree = {"scalar": np.ones((), dtype), "none": np.zeros((3, 0, 2), dtype), "many": np.ones((2, 3), dtype)}
    read = load(encode(tree))
    for name, array in tree.items():
        same(read[name], array)


def test_bytes_by_hand():
    tree = {"b": np.array([1.0], np.float32), "a": np.array(True)}
    text = (
        b'{"a":{"dtype":"BOOL","shape":[],"data_offsets":[0,1]},"b":{"dtype":"F32","shape":[1],"data_offsets":[1,5]}}'
    )
    padded = text + b" " * (-len(text) % 8)
    assert encode(tree) == len(padded).to_bytes(8, "little") + padded + b"\x01" + b"\x00\x00\x80\x3f"


def test_digests_are_fixed():
    assert digest({}) == hashlib.sha256(b"\x08\0\0\0\0\0\0\0{}      ").hexdigest()
    assert digest({"w": np.arange(3, dtype=np.float32)}) == (
        "87efb554fef01a9836e0bbab0dc4ebcc12a6655dea16a9d49e015be985c6f843"
    )


def test_names_are_sorted_and_not_escaped():
    tree = {
        "ß": np.zeros(1, np.int8),
        "Z": np.zeros(1, np.int8),
        "重み": np.zeros(1, np.int8),
        "a": np.zeros(1, np.int8),
    }
    head = header(layout(tree))[8:]
    assert list(json.loads(head)) == ["Z", "a", "ß", "重み"]
    assert "重み".encode() in head
    assert len(head) % 8 == 0


def test_pieces_join_to_encode_and_are_small():
    tree = {"large": np.arange(WRITE_BYTES // 4, dtype=np.float64), "small": np.zeros((), np.int16)}
    parts = list(pieces(tree))
    assert b"".join(parts) == encode(tree)
    assert [len(part) for part in parts[1:]] == [WRITE_BYTES, WRITE_BYTES, 2]
    assert digest(tree) == hashlib.sha256(encode(tree)).hexdigest()


@pytest.mark.parametrize(
    "view",
    [
        lambda array: array.T.copy().T,
        lambda array: np.repeat(array, 2, axis=0)[::2],
        lambda array: array.astype(">f4"),
        lambda array: np.frombuffer(array.tobytes(), np.float32).reshape(array.shape),
    ],
    ids=["columns first", "strided", "big-endian", "read-only"],
)
def test_memory_layout_does_not_matter(view):
    array = np.arange(6, dtype=np.float32).reshape(2, 3)
    assert encode({"x": view(array)}) == encode({"x": array})


def test_signed_zeros_and_shapes_are_told_apart():
    digests = {
        digest({"x": np.array([0.0])}),
        digest({"x": np.array([-0.0])}),
        digest({"x": np.array([[0.0]])}),
        digest({"x": np.array(0.0)}),
        digest({"y": np.array([0.0])}),
        digest({"x": np.array([0])}),
    }
    assert len(digests) == 6


def test_a_dtype_that_cannot_travel_is_named():
    with pytest.raises(UnsupportedArray, match=r"'spectrum' of dtype complex128.*float32"):
        encode({"spectrum": np.zeros(2, np.complex128)})


def test_the_name_that_the_format_keeps_is_refused():
    with pytest.raises(UnsupportedArray, match="__metadata__"):
        encode({"__metadata__": np.zeros(2)})


def test_layers_hide_what_lies_beneath():
    top, bottom = {"a": np.ones(1)}, {"a": np.zeros(1), "b": np.full(2, 3.0)}
    tree = Layered(top, bottom)
    assert dict(tree.items()) == {"a": top["a"], "b": bottom["b"]}
    assert len(tree) == 2
    assert "c" not in tree
    with pytest.raises(KeyError):
        tree["c"]

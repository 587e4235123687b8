"""Handwritten digits, as scikit-learn ships them, to start from without it.

E. Alpaydin and C. Kaynak, "Optical Recognition of Handwritten Digits" (UCI Machine Learning Repository, 1998,
https://doi.org/10.24432/C50P49, CC BY 4.0), the 1,797 digits of its test set.
"""

from importlib.resources import as_file, files
from typing import TypeAlias

import numpy as np

from shoal.core.tree import Array

Pair: TypeAlias = tuple[Array, Array]

INK = 16
"""The most that one of the 8 x 8 numbers counts: the dots of a block of 4 x 4."""


def digits() -> Pair:
    """Return 1,797 handwritten digits: x float32 [rows, 1, 8, 8] from 0 to 1, y int64 [rows]."""
    with as_file(files("shoal.data") / "digits.npz") as path, np.load(path, allow_pickle=False) as found:
        images, labels = found["images"], found["labels"]
    return images[:, None].astype(np.float32) / INK, labels.astype(np.int64)

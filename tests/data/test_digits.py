"""The digits that are carried along are scikit-learn's."""

import numpy as np
from sklearn.datasets import load_digits

from shoal.data import digits


def test_they_are_scikit_learns():
    x, y = digits()
    theirs = load_digits()
    assert (x.dtype, y.dtype, x.shape) == (np.float32, np.int64, (1797, 1, 8, 8))
    np.testing.assert_array_equal(x[:, 0] * 16, theirs.images)
    np.testing.assert_array_equal(y, theirs.target)

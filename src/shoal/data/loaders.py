"""Small data sets that come with scikit-learn, as (x, y): no network is needed. `pip install "shoal[data]"`."""

from typing import Any, TypeAlias

import numpy as np

from shoal.core.optional import installed
from shoal.core.tree import Array

Pair: TypeAlias = tuple[Array, Array]


def breast_cancer() -> Pair:
    """Return 569 tumours: x float32 [rows, 30] as measured, y int64 [rows], 1 being benign.

    Wolberg et al. 1995, "Breast Cancer Wisconsin (Diagnostic)" (UCI).
    """
    found = _bundled("load_breast_cancer")
    return found.data.astype(np.float32), found.target.astype(np.int64)


def diabetes() -> Pair:
    """Return 442 patients: x float32 [rows, 10], standardised, y float32 [rows, 1], the progression after a year.

    Efron et al. 2004, "Least Angle Regression".
    """
    found = _bundled("load_diabetes")
    return found.data.astype(np.float32), found.target.astype(np.float32)[:, None]


def _bundled(loader: str) -> Any:
    return vars(installed("sklearn.datasets", "scikit-learn"))[loader]()

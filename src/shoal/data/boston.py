"""The Boston Housing table, to compare with tutorials that use it. Its README.md says what is wrong with it."""

from importlib.resources import as_file, files
from typing import TypeAlias

import numpy as np
import numpy.typing as npt

from shoal.data.split import split
from shoal.data.tables import Table, read_csv

Floats: TypeAlias = npt.NDArray[np.float64]

TARGET = "MEDV"
"""The column to predict: median value of owner-occupied homes, in thousands of dollars."""


def boston_table() -> Table:
    """Return all 506 rows: 13 features and the target MEDV."""
    with as_file(files("shoal.data") / "boston_house_prices.csv") as path:
        return read_csv(path, TARGET)


def boston_housing() -> tuple[Floats, Floats, Floats, Floats]:
    """Return x_train [404, 13], y_train [404], x_test [102, 13] and y_test [102]: raw rows, nothing standardised.

    The order of the features is that of `boston_table().columns`.
    """
    train, test = split(boston_table())
    return train.features(TARGET), train.target(TARGET), test.features(TARGET), test.target(TARGET)

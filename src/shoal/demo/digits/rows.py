"""Who holds which of scikit-learn's digits."""

from dataclasses import dataclass
from typing import TypeAlias

import numpy as np

from shoal.core.errors import ConfigurationError
from shoal.core.tree import Array
from shoal.data import Table
from shoal.data.digits import INK, digits

Pair: TypeAlias = tuple[Array, Array]

TARGET = "digit"
COLUMNS = tuple(f"p{row}{column}" for row in range(8) for column in range(8))

PRETRAINED = 1000
"""Digits that the first version has learnt."""

STARTING = 100
"""Digits that every browser begins with, so that it forgets none while it learns how one person writes."""

OWNED = 60
"""Digits of each owner: few enough for one person's handwriting to count in a round."""

TESTED = 400


@dataclass(frozen=True, slots=True, eq=False)
class Rows:
    """The digits as x float32 [rows, 64], counts of ink from 0 to 16, and y int64 [rows]."""

    pretrained: Pair
    starting: Pair
    owners: tuple[Table, ...]
    test: Pair


def dealt(owners: int) -> Rows:
    """Deal the digits out, always in the same way. Raises ConfigurationError for more owners than there are digits."""
    images, y = digits()
    x = np.round(images.reshape(len(images), -1) * INK).astype(np.float32)
    order = np.random.Generator(np.random.Philox(1)).permutation(len(x))
    x, y = x[order], y[order]
    free = len(x) - PRETRAINED - STARTING - TESTED
    if owners > free // OWNED:
        raise ConfigurationError(f"{owners} owners of {OWNED} digits", f"there are enough for {free // OWNED}")
    cuts = np.cumsum([PRETRAINED, STARTING, TESTED, *[OWNED] * owners])
    parts = list(zip(np.split(x, cuts), np.split(y, cuts), strict=True))
    return Rows(parts[0], parts[1], tuple(_table(*pair) for pair in parts[3 : 3 + owners]), parts[2])


def _table(x: Array, y: Array) -> Table:
    return Table((*COLUMNS, TARGET), np.column_stack([x, y]).astype(np.float64))

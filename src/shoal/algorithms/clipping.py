"""Bounding the length of an update (McMahan et al. 2018, arXiv:1710.06963)."""

import math
from collections.abc import Sequence

import numpy as np

from shoal.core.tree import Tree


def clip_update(delta: Tree, names: Sequence[str], most: float) -> None:
    """Scale these arrays of an update, in place, so that the L2 norm of all of them is `most` at most."""
    norm = math.sqrt(sum(float(np.square(delta[name], dtype=np.float64).sum()) for name in names))
    if norm > most:
        for name in names:
            np.multiply(delta[name], most / norm, out=delta[name])

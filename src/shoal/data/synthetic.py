"""Clients that are drawn when they are asked for, after the two data sets that federated learning is measured on.

Both are sources for `shoal.simulate`: nobody's rows are kept, and each client is a pure function of seed and name.
They resemble LEAF's FEMNIST and Shakespeare (Caldas et al. 2018, arXiv:1812.01097) in shapes, classes, sizes and in
that every client has a manner of its own; they are drawings and noise, no handwriting and no English.
"""

from collections.abc import Sequence
from typing import TypeAlias

import numpy as np
import numpy.typing as npt

from shoal.core.errors import ConfigurationError
from shoal.core.seeds import derive
from shoal.core.tree import Array

Pair: TypeAlias = tuple[Array, Array]
Floats: TypeAlias = npt.NDArray[np.float64]

CLASSES = 62
SIDE = 28
STROKES = 3
POINTS = 16
"""Points along a stroke that the pen goes through."""

CHARACTERS = 80


class FemnistLike:
    """Writers, each with a slant, a pen and a size of their own: x float32 [rows, 1, 28, 28], y int64 below 62."""

    def __init__(self, writers: int = 3500, *, rows: int = 200, seed: int = 0) -> None:
        _check(writers, rows)
        self.names: Sequence[str] = tuple(f"writer-{i}" for i in range(writers))
        self._rows = rows
        self._seed = seed
        self._shapes = _shapes(_draws(seed, "shapes"))

    def sizes(self, names: Sequence[str]) -> list[int]:
        """Return how many rows some writers have: about `rows`, lognormal."""
        return [_size(self._seed, name, self._rows) for name in names]

    def many(self, names: Sequence[str]) -> list[Pair]:
        """Draw what some writers wrote."""
        return [self._written(name) for name in names]

    def _written(self, name: str) -> Pair:
        draw = _draws(self._seed, name)
        # each writer's mix of classes is a little its own
        y = draw.choice(CLASSES, _size(self._seed, name, self._rows), p=draw.dirichlet(np.full(CLASSES, 5.0)))
        turn, slant, pen = draw.normal(0, 0.15), draw.normal(0, 0.25), draw.uniform(0.9, 1.6)
        width, height = draw.uniform(7, 10), draw.uniform(7, 10)
        hand = np.array([[width, slant * width], [turn * height, height]])
        points = self._shapes[y] @ hand.T + SIDE / 2 + draw.normal(0, 0.6, (len(y), 1, 2))
        points += draw.normal(0, 0.25, points.shape)
        return _inked(points, pen), y.astype(np.int64)


class ShakespeareLike:
    """Roles, each with habits of their own: x int64 [rows, length] characters below 80, y int64 the next one."""

    def __init__(
        self, roles: int = 700, *, rows: int = 500, length: int = 80, habit: float = 0.3, seed: int = 0
    ) -> None:
        _check(roles, rows)
        if length < 1 or not 0 <= habit <= 1:
            raise ConfigurationError(f"length={length}, habit={habit}", "give a length from 1 and a habit from 0 to 1")
        self.names: Sequence[str] = tuple(f"role-{i}" for i in range(roles))
        self._rows = rows
        self._length = length
        self._habit = habit
        self._seed = seed
        self._language = _chain(_draws(seed, "language"))

    def sizes(self, names: Sequence[str]) -> list[int]:
        """Return how many rows some roles have: about `rows`, lognormal."""
        return [_size(self._seed, name, self._rows) for name in names]

    def many(self, names: Sequence[str]) -> list[Pair]:
        """Draw what some roles say."""
        return [self._said(name) for name in names]

    def _said(self, name: str) -> Pair:
        draw = _draws(self._seed, name)
        chain = (1 - self._habit) * self._language + self._habit * _chain(draw)
        rows = _size(self._seed, name, self._rows)
        text = _walk(chain, rows + self._length, draw)
        windows = np.lib.stride_tricks.sliding_window_view(text, self._length + 1)[:rows]
        return np.ascontiguousarray(windows[:, :-1]), windows[:, -1].copy()


def _check(clients: int, rows: int) -> None:
    if clients < 1 or rows < 1:
        raise ConfigurationError(f"{clients} clients of about {rows} rows", "give at least 1 of each")


def _draws(seed: int, name: str) -> np.random.Generator:
    return np.random.Generator(np.random.Philox(derive(seed, "synthetic", name)))


def _size(seed: int, name: str, rows: int) -> int:
    return max(1, round(rows * float(np.exp(_draws(seed, f"size of {name}").normal(0, 0.4)))))


def _shapes(draw: np.random.Generator) -> Floats:
    """Return each class as points [62, points, 2] in [-1, 1]: three quadratic curves."""
    corners = draw.uniform(-1, 1, (CLASSES, STROKES, 3, 1, 2))
    t = np.linspace(0, 1, POINTS)[:, None]
    curves = corners[:, :, 0] * (1 - t) ** 2 + 2 * corners[:, :, 1] * t * (1 - t) + corners[:, :, 2] * t**2
    return curves.reshape(CLASSES, STROKES * POINTS, 2)


def _inked(points: Floats, pen: float) -> Array:
    """Draw points [rows, points, 2] with a round pen; ink is separable, so rows and columns are drawn apart."""
    grid = np.arange(SIDE)
    across, down = (np.exp(-((grid - points[..., axis, None]) ** 2) / (2 * pen**2)) for axis in (0, 1))
    ink = np.einsum("npi,npj->nij", down, across)
    return np.asarray(np.minimum(ink, 1.0), np.float32)[:, None]


def _chain(draw: np.random.Generator) -> Floats:
    """Return the probabilities [80, 80] of the next character: few are likely after each."""
    return np.asarray(draw.dirichlet(np.full(CHARACTERS, 0.1), CHARACTERS))


def _walk(chain: Floats, steps: int, draw: np.random.Generator) -> npt.NDArray[np.int64]:
    cumulated = np.cumsum(chain, axis=1)
    text, now = np.empty(steps, np.int64), int(draw.integers(CHARACTERS))
    for step, chance in enumerate(draw.random(steps)):
        text[step] = now
        now = min(int(np.searchsorted(cumulated[now], chance)), CHARACTERS - 1)
    return text

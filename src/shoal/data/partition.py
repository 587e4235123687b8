"""Dealing one data set out to clients, evenly or not: as rows by client name, decided by a seed.

Every function takes (x, y) and returns a Partition, which `shoal.simulate` takes as its clients.
"""

from collections.abc import Iterator, Mapping, Sequence
from typing import Any, Literal

import numpy as np
import numpy.typing as npt

from shoal.core import html
from shoal.core.errors import ConfigurationError, DataError, NoRows
from shoal.core.optional import installed
from shoal.core.seeds import derive
from shoal.core.tree import Array

Pair = tuple[Array, Array]


MOST_NAMES = 20
"""Clients whose names fit below a plot."""

MOST_LABELS = 30
"""Kinds of labels that a plot tells apart."""


class Partition(Mapping[str, Pair]):
    """Clients by name, each with its rows (x, y); `plot` draws the `shown`: their labels, or their features."""

    def __init__(self, parts: Mapping[str, Pair], shown: Literal["labels", "features"] = "labels") -> None:
        empty = next((name for name, (x, _) in parts.items() if len(x) == 0), None)
        if empty is not None:
            raise NoRows(f"client {empty!r} of a partition has no rows", "use fewer clients, or a milder skew")
        self._parts = dict(parts)
        self._shown = shown

    def __getitem__(self, name: str) -> Pair:
        """Return a client's rows."""
        return self._parts[name]

    def __iter__(self) -> Iterator[str]:
        return iter(self._parts)

    def __len__(self) -> int:
        return len(self._parts)

    @property
    def sizes(self) -> dict[str, float]:
        """Return how many rows every client has."""
        return {name: float(len(x)) for name, (x, _) in self._parts.items()}

    def counts(self) -> tuple[Array, Array]:
        """Return the labels [L], and how many rows of each every client has, [clients, L]."""
        labels = np.unique(np.concatenate([y for _, y in self._parts.values()]))
        return labels, np.array([[np.count_nonzero(y == label) for label in labels] for _, y in self._parts.values()])

    def _repr_html_(self) -> str:
        labels, counts = self.counts()
        if len(labels) > MOST_LABELS:
            labels, counts = np.array([]), counts[:, :0]
        rows = [[name, int(size), *map(int, row)] for (name, size), row in zip(self.sizes.items(), counts, strict=True)]
        return html.table(["client", "rows", *map(str, labels)], rows)

    def plot(self) -> Any:
        """Draw how many rows of which label every client has, and return matplotlib's axes.

        Of more than thirty labels, as in regression, only the rows are drawn; of shifted features their means.
        """
        _, axes = installed("matplotlib.pyplot").subplots(layout="constrained")
        if self._shown == "features":
            self._plot_features(axes)
        else:
            self._plot_labels(axes)
        return axes

    def _plot_labels(self, axes: Any) -> None:
        labels, counts = self.counts()
        if len(labels) > MOST_LABELS:
            labels, counts = np.array(["all"]), counts.sum(axis=1, keepdims=True)
        bottom = np.zeros(len(counts))
        for column, label in enumerate(labels):
            axes.bar(range(len(counts)), counts[:, column], bottom=bottom, label=str(label))
            bottom += counts[:, column]
        axes.set_ylabel("rows")
        axes.set_xlabel("clients")
        if len(counts) <= MOST_NAMES:
            axes.set_xticks(range(len(counts)), list(self._parts), rotation=45, ha="right")
        else:
            axes.set_xticks([])
        if len(labels) > 1:
            axes.legend(title="label", loc="center left", bbox_to_anchor=(1, 0.5))  # beside the bars, not on them

    def _plot_features(self, axes: Any) -> None:
        means = np.array([x.reshape(len(x), -1)[:, :2].mean(axis=0) for x, _ in self._parts.values()])
        for name, point in zip(self._parts, means, strict=True):
            axes.plot(point[0], point[-1], "o", label=name)
        axes.set_xlabel("mean of the first feature")
        axes.set_ylabel("mean of the second feature")


def iid(x: Array, y: Array, clients: int, *, seed: int = 0) -> Partition:
    """Deal shuffled rows out evenly: sizes differ by one at most."""
    order = _draws(seed, "iid", x, y, clients).permutation(len(x))
    return _named(x, y, [np.sort(part) for part in np.array_split(order, clients)])


def dirichlet(x: Array, y: Array, clients: int, *, alpha: float, least: int = 1, seed: int = 0) -> Partition:
    """Deal the rows of every label out by shares drawn from Dirichlet(alpha): the smaller alpha, the more uneven.

    Hsu et al. 2019 (arXiv:1909.06335), as used by Li et al. 2022 (arXiv:2102.02079): drawn anew until every client
    has `least` rows. Raises NoRows when a hundred draws did not bring that.
    """
    if not alpha > 0:
        raise ConfigurationError(f"dirichlet with alpha={alpha}", "give a positive number")
    draw = _draws(seed, "dirichlet", x, y, clients)
    for _ in range(100):
        parts: list[list[npt.NDArray[np.int64]]] = [[] for _ in range(clients)]
        for label in np.unique(y):
            rows = draw.permutation(np.flatnonzero(y == label))
            cuts = (np.cumsum(draw.dirichlet(np.full(clients, alpha)))[:-1] * len(rows)).astype(np.int64)
            for part, chosen in zip(parts, np.split(rows, cuts), strict=True):
                part.append(chosen)
        joined = [np.sort(np.concatenate(part)) for part in parts]
        if min(map(len, joined)) >= least:
            return _named(x, y, joined)
    raise NoRows(f"no draw gave each of {clients} clients {least} rows", "use fewer clients or a larger alpha")


def shards(x: Array, y: Array, clients: int, *, each: int = 2, seed: int = 0) -> Partition:
    """Sort by label, cut into clients * each shards and give every client `each` of them.

    The pathological partition of McMahan et al. 2017 (arXiv:1602.05629).
    """
    draw = _draws(seed, "shards", x, y, clients * each)
    cut = np.array_split(np.argsort(y, kind="stable"), clients * each)
    order = draw.permutation(len(cut))
    return _named(x, y, [np.concatenate([cut[i] for i in order[c::clients]]) for c in range(clients)])


def by_quantity(x: Array, y: Array, clients: int, *, alpha: float, least: int = 1, seed: int = 0) -> Partition:
    """Deal shuffled rows out in amounts drawn from Dirichlet(alpha); everybody first gets `least` of them."""
    if not alpha > 0:
        raise ConfigurationError(f"by_quantity with alpha={alpha}", "give a positive number")
    draw = _draws(seed, "quantity", x, y, clients * least)
    order = draw.permutation(len(x))
    free = len(x) - clients * least
    ends = (np.cumsum(draw.dirichlet(np.full(clients, alpha)))[:-1] * free).astype(np.int64)
    return _named(x, y, np.split(order, ends + least * np.arange(1, clients)))


def by_id(x: Array, y: Array, ids: Sequence[Any] | Array) -> Partition:
    """Give every natural owner (writer, user, hospital) its rows, under its own name."""
    given = np.asarray(ids)
    if len(given) != len(x):
        raise DataError(f"{len(given)} ids for {len(x)} rows", "give one id for every row")
    return Partition({str(owner): (x[given == owner], y[given == owner]) for owner in np.unique(given)})


def feature_shift(partition: Partition, *, deviation: float, seed: int = 0) -> Partition:
    """Give every client its own view of the features: x * scale + shift, both drawn once a client and feature."""
    shifted = {}
    for name, (x, y) in partition.items():
        draw = np.random.Generator(np.random.Philox(derive(seed, "shift", name)))
        scale = np.exp(deviation * draw.standard_normal(x.shape[1:]))
        shift = deviation * draw.standard_normal(x.shape[1:])
        shifted[name] = ((x * scale + shift).astype(x.dtype), y)
    return Partition(shifted, shown="features")


def _draws(seed: int, kind: str, x: Array, y: Array, needed: int) -> np.random.Generator:
    if len(x) != len(y):
        raise DataError(f"{len(x)} rows of x, {len(y)} of y", "give every row its label")
    if needed < 1:
        raise ConfigurationError(f"a partition over {needed} clients", "give at least 1")
    if needed > len(x):
        raise NoRows(f"{len(x)} rows for {needed} parts", "use fewer clients")
    return np.random.Generator(np.random.Philox(derive(seed, kind)))


def _named(x: Array, y: Array, parts: Sequence[npt.NDArray[np.int64]]) -> Partition:
    return Partition({str(i): (x[rows], y[rows]) for i, rows in enumerate(parts)})

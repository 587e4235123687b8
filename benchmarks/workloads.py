"""Four pieces of work on which federated-learning simulators are compared: data, weights and cohorts by seed.

w1 is a regression MLP (1,657 parameters), w2 a small CNN (118,494), w3 a logistic regression (7,850); `million` is the
MLP over a million clients that are drawn when they take part. Clients visit their rows in order, one epoch a round, by
plain SGD. numpy only, so that simulators of every framework can import it; `workload_tasks` makes Shoal's tasks of it.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

Rows = tuple[np.ndarray, np.ndarray]
Shapes = Sequence[tuple[int, ...]]


@dataclass(frozen=True)
class Workload:
    """`rounds` follow one warm-up round; then the loss is compared."""

    clients: int
    rows: int
    cohort: int
    batch: int
    rounds: int
    lr: float
    shape: tuple[int, ...]
    classes: int


WORKLOADS = {
    "w1": Workload(1000, 40, 100, 8, 20, 0.01, (13,), 1),
    "w1_1000": Workload(1000, 40, 1000, 8, 20, 0.01, (13,), 1),
    "w2": Workload(200, 100, 20, 20, 10, 0.05, (1, 28, 28), 62),
    "w3": Workload(1000, 60, 100, 10, 20, 0.05, (784,), 10),
    "million": Workload(1_000_000, 40, 1000, 8, 20, 0.01, (13,), 1),
}


def data(work: Workload, seed: int = 1) -> list[Rows]:
    """Return (x, y) for every client; y is a number for one class, else a class."""
    draw = np.random.RandomState(seed)
    total, width = work.clients * work.rows, int(np.prod(work.shape))
    x = draw.standard_normal((total, width)).astype(np.float32)
    truth = draw.standard_normal((width, work.classes)).astype(np.float32)
    if work.classes == 1:
        y = (np.tanh(x @ truth) + 0.1 * draw.standard_normal((total, 1))).astype(np.float32)
    else:
        y = (x @ truth + draw.standard_normal((total, work.classes))).argmax(1).astype(np.int64)
    x = x.reshape(total, *work.shape)
    return [(x[i : i + work.rows], y[i : i + work.rows]) for i in range(0, total, work.rows)]


def cohorts(work: Workload, rounds: int, seed: int = 2) -> list[np.ndarray]:
    """Return the clients of every round, by number."""
    draw = np.random.RandomState(seed)
    return [draw.choice(work.clients, work.cohort, replace=False) for _ in range(rounds)]


SHAPES: dict[str, Shapes] = {
    "w1": [(32, 13), (32,), (24, 32), (24,), (16, 24), (16,), (1, 16), (1,)],
    "w2": [(32, 1, 3, 3), (32,), (64, 32, 3, 3), (64,), (62, 1600), (62,)],
    "w3": [(10, 784), (10,)],
}
"""The arrays of the models as torch lays them out: weights (out, in) or (out, in, height, width), then biases."""

MLP = ("w1", "w1_1000", "million")


def initial(name: str, seed: int = 3) -> list[np.ndarray]:
    """Return a workload's initial weights: uniform within 1 / sqrt(fan in)."""
    draw, bound, arrays = np.random.RandomState(seed), 0.0, []
    for shape in SHAPES["w1" if name in MLP else name]:
        if len(shape) > 1:
            bound = 1 / np.sqrt(np.prod(shape[1:]))
        arrays.append(draw.uniform(-bound, bound, shape).astype(np.float32))
    return arrays


def test_rows(name: str, rows: Sequence[Rows]) -> Rows:
    """Return the rows on which final losses are compared: those of the first fifty clients (w2: a thousand rows)."""
    x = np.concatenate([x for x, _ in rows[:50]])
    y = np.concatenate([y for _, y in rows[:50]])
    return (x[:1000], y[:1000]) if name == "w2" else (x, y)


class Numbered(Sequence[str]):
    """The names "0" to "count - 1", none of which is kept."""

    def __init__(self, count: int) -> None:
        self._count = count

    def __len__(self) -> int:
        return self._count

    def __getitem__(self, index: int | slice) -> str | list[str]:  # type: ignore[override]
        if isinstance(index, slice):
            return [str(i) for i in range(*index.indices(self._count))]
        return str(index)


class Drawn:
    """A source that draws the rows of a client when it takes part."""

    def __init__(self, work: Workload) -> None:
        self.names = Numbered(work.clients)
        self._work = work
        self._truth = np.random.default_rng(1).standard_normal((*work.shape, 1), np.float32)

    def many(self, names: Sequence[str]) -> list[Rows]:
        return [self._rows(int(name)) for name in names]

    def _rows(self, number: int) -> Rows:
        draw = np.random.Generator(np.random.Philox(key=number))
        x = draw.standard_normal((self._work.rows, *self._work.shape), np.float32)
        return x, np.tanh(x @ self._truth)

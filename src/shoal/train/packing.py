"""The rows of many clients as one table, and the batches in which C clients take them at once.

Clients are sorted by their number of full batches. In every epoch all full batches come first, in lockstep: those who
still have one are always the first `live` clients, so nothing is masked and nobody waits. The shorter batch at the end
of a client's epoch is taken together with all clients whose last batch has the same size. A client sees its rows in
the order in which `LoopTrainer` would show them.
"""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import TypeAlias

import numpy as np
import torch

from shoal.core.errors import DataError
from shoal.core.seeds import derive, permutations
from shoal.core.task import LocalPlan
from shoal.core.tree import Array
from shoal.train.data import ClientData

Which: TypeAlias = slice | torch.Tensor
"""Some of the clients: a range, or their positions."""


@dataclass(frozen=True, slots=True, eq=False)
class Turn:
    """One step of some clients: `batch` holds arrays [k, rows, ...] in the order of `columns`.

    Of the clients of a range only the first `live` take the step; the others are there to keep shapes few. A turn is
    `steady` when its shape will come again: it has full batches, or is one of all clients.
    """

    which: Which
    live: int
    rows: int
    batch: list[torch.Tensor]
    steady: bool = True

    @property
    def surplus(self) -> slice | None:
        """The clients of a range that do not take the step, if any."""
        if isinstance(self.which, slice) and self.which.stop - self.which.start > self.live:
            return slice(self.which.start + self.live, self.which.stop)
        return None

    @property
    def stepping(self) -> Which:
        """The clients that take the step."""
        if isinstance(self.which, slice):
            return slice(self.which.start, self.which.start + self.live)
        return self.which


class Packed:
    """The rows of clients, sorted by `order`; arrays by name in the order of `columns`."""

    def __init__(self, clients: Sequence[ClientData], batch_size: int, device: torch.device) -> None:
        rows = np.array([client.rows for client in clients])
        self.order = np.argsort(-(rows // batch_size), kind="stable")
        self.clients = [clients[i] for i in self.order]
        self.rows = rows[self.order]
        self.columns = sorted(self.clients[0].arrays)
        _check_columns(self.clients, self.columns)
        self._size = batch_size
        self._device = device
        self._starts = np.concatenate([[0], np.cumsum(self.rows)])
        self._tables = [self._joined(name) for name in self.columns]
        self._even = bool((self.rows == self.rows[0]).all())

    def turns(self, plan: LocalPlan, epoch: int, round_up: Callable[[int, int], int]) -> Iterator[Turn]:
        """Yield the steps of an epoch; `round_up` widens a number of live clients, of a chunk, that is no fixed one."""
        order = self._visits(plan, epoch)
        full = self.rows // self._size
        for step in range(int(full[0])):
            live = len(self.clients) if step < full[-1] else int(np.count_nonzero(full > step))
            wide = round_up(live, len(self.clients))
            # the surplus clients are shown rows that nobody learns from
            first = np.where(full[:wide] > step, step * self._size, 0)
            yield Turn(slice(0, wide), live, self._size, self._batch(slice(0, wide), order, first, self._size))
        rest = self.rows % self._size
        for size in np.unique(rest[rest > 0]):
            chosen = np.flatnonzero(rest == size)
            which = _range(chosen)
            batch = self._batch(which, order, full[chosen] * self._size, int(size))
            yield Turn(which, len(chosen), int(size), batch, steady=len(chosen) == len(self.clients))

    def _visits(self, plan: LocalPlan, epoch: int) -> Array | None:
        if not plan.shuffle:
            return None if self._even else np.arange(self._starts[-1])
        seeds = [derive(client.seed, epoch) for client in self.clients]
        orders: Array = np.concatenate(permutations(seeds, self.rows.tolist()))
        return np.asarray(orders + np.repeat(self._starts[:-1], self.rows))

    def _batch(self, which: Which, order: Array | None, first: Array, size: int) -> list[torch.Tensor]:
        if order is None:
            start = int(first[0])
            return [self._window(table, len(first), start, size) for table in self._tables]
        starts = self._starts[:-1][which if isinstance(which, slice) else which.numpy()] + first
        places = np.minimum(starts[:, None] + np.arange(size), len(order) - 1)
        chosen = torch.from_numpy(order[places.reshape(-1)]).to(self._device)
        return [table.index_select(0, chosen).view(len(first), size, *table.shape[1:]) for table in self._tables]

    def _window(self, table: torch.Tensor, clients: int, start: int, size: int) -> torch.Tensor:
        return table.view(len(self.clients), -1, *table.shape[1:])[:clients, start : start + size]

    def _joined(self, name: str) -> torch.Tensor:
        parts = [client.arrays[name] for client in self.clients]
        _check_alike(self.clients, name, parts)
        joined = parts[0] if len(parts) == 1 else np.concatenate(parts)
        return torch.from_numpy(np.require(joined, requirements=["C", "W"])).to(self._device)


def _check_columns(clients: Sequence[ClientData], columns: Sequence[str]) -> None:
    wanted = set(columns)
    for client in clients:
        if client.arrays.keys() != wanted:
            raise DataError(
                f"client {client.name!r} has the arrays {sorted(client.arrays)}, others have {list(columns)}",
                "give every client the same arrays",
            )


def _check_alike(clients: Sequence[ClientData], name: str, parts: Sequence[Array]) -> None:
    kind = (parts[0].dtype, parts[0].shape[1:])
    for client, part in zip(clients, parts, strict=True):
        if (part.dtype, part.shape[1:]) != kind:
            raise DataError(
                f"client {client.name!r}: a row of {name!r} is {part.dtype} {part.shape[1:]}, "
                f"client {clients[0].name!r} has {kind[0]} {kind[1]}",
                "give every client rows of one dtype and shape",
            )


def _range(positions: Array) -> Which:
    first, last = int(positions[0]), int(positions[-1])
    return slice(first, last + 1) if last - first + 1 == len(positions) else torch.from_numpy(positions)


def by_column(columns: Sequence[str], batch: Sequence[torch.Tensor]) -> dict[str, torch.Tensor]:
    """Return a batch as arrays by name."""
    return dict(zip(columns, batch, strict=True))

"""The rows of many clients as one table, and the batches in which C clients take them at once.

Clients are sorted by their number of full batches. In every epoch all full batches come first, in lockstep: those who
still have one are always the first `live` clients, so nothing is masked and nobody waits. The shorter batch at the end
of a client's epoch is taken together with all clients whose last batch has the same size. A client sees its rows in
the order in which `LoopTrainer` would show them.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import TypeAlias

import numpy as np
import torch

from shoal.core.errors import DataError
from shoal.core.seeds import derive, permutation
from shoal.core.task import LocalPlan
from shoal.core.tree import Array
from shoal.train.data import ClientData

Which: TypeAlias = slice | torch.Tensor
"""Some of the clients: a range, or their positions."""


@dataclass(frozen=True, slots=True, eq=False)
class Turn:
    """One step of some clients: `batch` holds arrays [k, rows, ...] in the order of `columns`."""

    which: Which
    clients: int
    rows: int
    batch: list[torch.Tensor]


class Packed:
    """The rows of clients, sorted by `order`; arrays by name in the order of `columns`."""

    def __init__(self, clients: Sequence[ClientData], batch_size: int, device: torch.device) -> None:
        rows = np.array([client.rows for client in clients])
        self.order = np.argsort(-(rows // batch_size), kind="stable")
        self.clients = [clients[i] for i in self.order]
        self.rows = rows[self.order]
        self.columns = sorted(self.clients[0].arrays)
        self._size = batch_size
        self._device = device
        self._starts = np.concatenate([[0], np.cumsum(self.rows)])
        self._tables = [self._joined(name) for name in self.columns]
        self._even = bool((self.rows == self.rows[0]).all())

    def turns(self, plan: LocalPlan, epoch: int) -> Iterator[Turn]:
        """Yield the steps of an epoch."""
        order = self._visits(plan, epoch)
        full = self.rows // self._size
        for step in range(int(full[0])):
            live = int(np.count_nonzero(full > step))
            yield self._turn(slice(0, live), live, order, step * self._size, self._size)
        rest = self.rows % self._size
        for size in np.unique(rest[rest > 0]):
            chosen = np.flatnonzero(rest == size)
            yield self._turn(_range(chosen), len(chosen), order, full[chosen] * self._size, int(size))

    def _visits(self, plan: LocalPlan, epoch: int) -> Array | None:
        if not plan.shuffle:
            return None if self._even else np.arange(self._starts[-1])
        parts = [
            permutation(derive(client.seed, epoch), rows) + start
            for client, rows, start in zip(self.clients, self.rows, self._starts, strict=False)
        ]
        return np.concatenate(parts)

    def _turn(self, which: Which, clients: int, order: Array | None, first: object, size: int) -> Turn:
        if order is None:
            start = int(np.max(first))  # type: ignore[call-overload]
            return Turn(which, clients, size, [self._window(table, clients, start, size) for table in self._tables])
        starts = self._starts[:-1][which if isinstance(which, slice) else which.numpy()] + first
        chosen = torch.from_numpy(order[(starts[:, None] + np.arange(size)).reshape(-1)]).to(self._device)
        batch = [table.index_select(0, chosen).view(clients, size, *table.shape[1:]) for table in self._tables]
        return Turn(which, clients, size, batch)

    def _window(self, table: torch.Tensor, clients: int, start: int, size: int) -> torch.Tensor:
        return table.view(len(self.clients), -1, *table.shape[1:])[:clients, start : start + size]

    def _joined(self, name: str) -> torch.Tensor:
        parts = [_array(client, name, self.columns) for client in self.clients]
        _check_alike(self.clients, name, parts)
        joined = parts[0] if len(parts) == 1 else np.concatenate(parts)
        return torch.from_numpy(np.require(joined, requirements=["C", "W"])).to(self._device)


def _array(client: ClientData, name: str, columns: Sequence[str]) -> Array:
    if client.arrays.keys() != set(columns):
        raise DataError(
            f"client {client.name!r} has the arrays {sorted(client.arrays)}, others have {list(columns)}",
            "give every client the same arrays",
        )
    return client.arrays[name]


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

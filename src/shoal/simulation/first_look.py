"""What can be seen of clients in memory before the first round: rows that the model cannot be trained on.

Labels and indices out of range are at an extreme of all clients' values, so that the rows with the smallest and the
largest ones are tried; and a row that is alone in its batch, where a client has one.
"""

import copy
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn

from shoal.core.errors import DataError
from shoal.core.tree import Array
from shoal.simulation.clients import Loaded, Source
from shoal.train.arrays import tensor
from shoal.train.data import ClientData
from shoal.train.objective import USER_ERRORS, objective
from shoal.train.randomness import seeded
from shoal.train.task import Task


@dataclass(frozen=True, slots=True)
class _Row:
    """One row of a client, and what is special about it."""

    client: ClientData
    index: int
    array: str
    value: object

    @property
    def batch(self) -> dict[str, Array]:
        return {name: array[self.index : self.index + 1] for name, array in self.client.arrays.items()}


def look(task: Task, source: Source) -> None:
    """Try the rows that are most likely to fail. Raises DataError naming client, row and value.

    Clients that a source loads when they take part are not looked at.
    """
    if not isinstance(source, Loaded):
        return
    clients = source.many(source.names)
    _same_arrays(clients)
    model = copy.deepcopy(task.model)
    for row in _extremes(clients):
        reason = _fails(task, model.eval(), row.batch)
        if reason:
            raise DataError(
                f"client {row.client.name!r}: row {row.index} of {row.array!r} holds {row.value}, "
                f"which the model does not take: {reason}",
                "correct the row, or give the model as many classes or entries as there are",
            )
    _alone(task, model.train(), clients)


def _same_arrays(clients: Sequence[ClientData]) -> None:
    wanted = clients[0].arrays.keys()
    for client in clients:
        if client.arrays.keys() != wanted:
            raise DataError(
                f"client {client.name!r} has the arrays {sorted(client.arrays)}, others {sorted(wanted)}",
                "give every client the same arrays",
            )


def _extremes(clients: Sequence[ClientData]) -> Iterator[_Row]:
    for name, array in clients[0].arrays.items():
        if array.dtype.kind not in "iu" or array.size == 0:
            continue
        filled = [client for client in clients if client.arrays[name].size]
        for client, find in (
            (min(filled, key=lambda each: each.arrays[name].min()), "argmin"),
            (max(filled, key=lambda each: each.arrays[name].max()), "argmax"),
        ):
            values = client.arrays[name]
            place = int(values.argmin() if find == "argmin" else values.argmax())
            yield _Row(client, place // max(1, values[0].size), name, values.reshape(-1)[place])


def _alone(task: Task, model: nn.Module, clients: Sequence[ClientData]) -> None:
    size = task.plan.batch_size
    client = next((client for client in clients if client.rows % size == 1 % size), None)
    if client is None:
        return
    reason = _fails(task, model, _Row(client, client.rows - 1, "", "").batch)
    if reason:
        raise DataError(
            f"client {client.name!r} has {client.rows} rows; in batches of {size} one is alone, which the model cannot "
            f"be trained on: {reason}",
            "choose another batch size, leave the client out, or normalise without batches, as by nn.GroupNorm",
        )


def _fails(task: Task, model: nn.Module, batch: Mapping[str, Any]) -> str:
    try:
        with seeded(0), torch.no_grad():
            objective(task.loss)(model, {name: tensor(array) for name, array in batch.items()})
    except USER_ERRORS as error:
        return str(error).splitlines()[0] if str(error) else repr(error)
    return ""

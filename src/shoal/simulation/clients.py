"""Where simulated clients' rows come from: a list or a mapping in memory, or a source that loads them when needed."""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any, Protocol, TypeAlias, runtime_checkable

import numpy as np

from shoal.core.errors import DataError, NoRows
from shoal.train.data import ClientData, client_data

ROWS_BYTES = 256 << 20
"""Bytes of rows that are in memory at once, apart from what a source keeps itself."""


@runtime_checkable
class Source(Protocol):
    """Clients that are loaded when they take part, so that a million of them need no memory.

    `many` returns for each name what a list would hold: an (x, y) pair, a dict of arrays, a torch Dataset.
    """

    @property
    def names(self) -> Sequence[str]:
        """All clients, in a fixed order."""
        ...

    def many(self, names: Sequence[str]) -> Iterable[Any]:
        """Load the rows of some clients."""
        ...


@runtime_checkable
class SizedSource(Source, Protocol):
    """A source that knows how many rows its clients have without loading them; the largest then train first."""

    def sizes(self, names: Sequence[str]) -> Sequence[int]:
        """Return how many rows some clients have."""
        ...


TRIED = 8
"""Clients among which an example is looked for."""

Clients: TypeAlias = Source | Mapping[str, Any] | Sequence[Any]


class Loaded:
    """Clients in memory, each checked once."""

    def __init__(self, clients: Mapping[str, ClientData]) -> None:
        self._clients = clients
        self.names: Sequence[str] = tuple(clients)

    def many(self, names: Sequence[str]) -> list[ClientData]:
        """Return the rows of some clients."""
        return [self._clients[name] for name in names]

    def sizes(self, names: Sequence[str]) -> list[int]:
        """Return how many rows some clients have."""
        return [self._clients[name].rows for name in names]


def source_of(clients: Clients) -> Source:
    """Return clients, in any of their forms, as a source; those of a list are called "0", "1" and so on, unless they
    are ClientData with names of their own.

    Raises NoRows without a client or for one without a row, and DataError for what is no client, naming it.
    """
    if isinstance(clients, Mapping):
        source: Source = Loaded({str(name): _client(str(name), given) for name, given in clients.items()})
    elif isinstance(clients, Source):
        source = clients
    elif isinstance(clients, Sequence):
        listed = [_client(str(i), given) for i, given in enumerate(clients)]
        source = Loaded({client.name: client for client in listed})
        if len(source.names) < len(listed):
            raise DataError("two clients of one name", "give every client its own")
    else:
        raise DataError(
            f"clients of type {type(clients).__name__}",
            "give a list or a mapping of (x, y), or a source with `names` and `many(names)`",
        )
    if len(source.names) == 0:
        raise NoRows("there are no clients", "give at least one")
    return source


def sizes_of(source: Source, names: Sequence[str]) -> Sequence[int] | None:
    """Return how many rows some clients have, if that is known before they are loaded."""
    return source.sizes(names) if isinstance(source, SizedSource) else None


def load(source: Source, jobs: Sequence[tuple[str, str, int]]) -> list[ClientData]:
    """Load the clients of some jobs, each (name, assignment, seed)."""
    given = source.many([name for name, _, _ in jobs])
    return [_for_round(data, *job) for job, data in zip(jobs, given, strict=True)]


def loaded(source: Source, jobs: Sequence[tuple[str, str, int]], most: int = ROWS_BYTES) -> Iterator[list[ClientData]]:
    """Load the clients of some jobs, as many at once as `most` bytes hold, and at least one.

    Where they are cut depends on nothing but the clients. A source whose `many` is a generator loads no more than that.
    """
    some: list[ClientData] = []
    size = 0
    for job, data in zip(jobs, source.many([name for name, _, _ in jobs]), strict=True):
        client = _for_round(data, *job)
        more = sum([array.nbytes for array in client.arrays.values()])
        if some and size + more > most:
            yield some
            some, size = [], 0
        some.append(client)
        size += more
    yield some


def first_rows(source: Source, count: int) -> dict[str, Any]:
    """Return a batch of a client's rows: what a task is tried on when it has no example.

    It is the first client whose rows there are finite, of all in memory or of the first few of a lazy source; of others
    the rounds tell. Raises DataError when there is none.
    """
    names = source.names if isinstance(source, Loaded) else source.names[:TRIED]
    for name in names:
        (client,) = load(source, [(name, "", 0)])
        batch = {array: values[:count] for array, values in client.arrays.items()}
        if all(np.isfinite(values).all() for values in batch.values() if values.dtype.kind == "f"):
            return batch
    raise DataError(
        f"client {names[0]!r} and {len(names) - 1} others hold NaN or infinity among their first {count} rows",
        "mend the rows, or give the task an example: Task(..., example=(x, y))",
    )


def _for_round(data: Any, name: str, assignment: str, seed: int) -> ClientData:
    if isinstance(data, ClientData):
        return data.assigned(name, assignment, seed)
    return client_data(name, data, assignment, seed)


def _client(name: str, given: Any) -> ClientData:
    if isinstance(given, ClientData):
        return given
    try:
        return client_data(name, given)
    except DataError as error:
        who = f"client {name!r}"
        problem = error.problem if error.problem.startswith(who) else f"{who}: {error.problem}"
        raise type(error)(problem, error.fix) from error

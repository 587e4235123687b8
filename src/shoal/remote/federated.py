"""Data that is dealt out to several owners: a tensor of shards, and batches of which each lies at one owner."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from itertools import zip_longest
from typing import TYPE_CHECKING, cast

import torch

from shoal.core import html
from shoal.core.errors import DataError, WrongPlace
from shoal.remote.tensor import RemoteTensor

if TYPE_CHECKING:
    from shoal.remote.worker import Worker

Batch = tuple[RemoteTensor, ...]


class FederatedTensor:
    """Rows of one table at several owners: `shards` by name, alike but in the number of rows."""

    def __init__(self, shards: Mapping[str, RemoteTensor]) -> None:
        if not shards:
            raise DataError("a federated tensor without shards", "give at least one, by its owner's name")
        for name, shard in shards.items():
            if not isinstance(shard, RemoteTensor):
                raise WrongPlace(f"the shard of {name!r} is here", "send it first: worker.send(tensor)")
        forms = {(shard.dtype, tuple(shard.shape[1:]) if shard.dim() else None) for shard in shards.values()}
        if len(forms) != 1 or None in {form[1] for form in forms}:
            raise DataError(f"shards of {len(forms)} kinds of rows", "give rows of one shape and dtype")
        self.shards = dict(shards)

    @classmethod
    def deal(cls, tensor: torch.Tensor, workers: Sequence["Worker"]) -> "FederatedTensor":
        """Deal a local tensor's rows out like cards: row i goes to worker i modulo their number."""
        return cls({worker.name: worker.send(tensor[at :: len(workers)]) for at, worker in enumerate(workers)})  # type: ignore[misc]

    def __len__(self) -> int:
        return sum(len(shard) for shard in self.shards.values())

    def __getitem__(self, name: str) -> RemoteTensor:
        return self.shards[name]

    def __repr__(self) -> str:
        rows = ", ".join(f"{name}: {len(shard)}" for name, shard in self.shards.items())
        return f"FederatedTensor({list(self.shape)}, {rows})"

    def _repr_html_(self) -> str:
        return html.table(("worker", "rows"), [(name, len(shard)) for name, shard in self.shards.items()])

    @property
    def shape(self) -> torch.Size:
        """The shape that all rows together have."""
        return torch.Size((len(self), *next(iter(self.shards.values())).shape[1:]))

    def map(self, function: Callable[[RemoteTensor], RemoteTensor]) -> "FederatedTensor":
        """Return what a function makes of each shard, at its owner."""
        return FederatedTensor({name: function(shard) for name, shard in self.shards.items()})

    def sum(self, reason: str | None = None) -> torch.Tensor:
        """Return the sum over all rows. Raises NotPermitted where an owner keeps the sum of its own."""
        sums = [
            cast(RemoteTensor, shard.sum(0)) for shard in self.shards.values()
        ]  # all owners are at work before one is asked
        return torch.stack([each.get(reason) for each in sums]).sum(0)

    def mean(self, reason: str | None = None) -> torch.Tensor:
        """Return the mean over all rows, however many each owner has. Raises NotPermitted as `sum` does."""
        return self.sum(reason) / len(self)

    def get(self, reason: str | None = None) -> dict[str, torch.Tensor]:
        """Fetch every shard. Raises NotPermitted unless all owners let theirs leave."""
        return {name: shard.get(reason) for name, shard in self.shards.items()}


class FederatedDataLoader:
    """Batches over the rows of several owners, each batch at one of them; owners take turns.

    `tensors` are FederatedTensors with equal numbers of rows at each owner. With `shuffle` each owner's rows come in
    an order that `generator` draws anew for every pass.
    """

    def __init__(
        self,
        *tensors: FederatedTensor,
        batch_size: int = 1,
        shuffle: bool = False,
        drop_last: bool = False,
        generator: torch.Generator | None = None,
    ) -> None:
        if not tensors or batch_size < 1:
            raise DataError(f"a loader of {len(tensors)} tensors, batch_size={batch_size}", "give at least 1 of each")
        for each in tensors[1:]:
            rows, first = ({name: len(shard) for name, shard in one.shards.items()} for one in (each, tensors[0]))
            if rows != first:
                raise DataError(f"tensors with rows {first} and {rows}", "give the same owners the same rows")
        self._tensors = tensors
        self._size = batch_size
        self._shuffle = shuffle
        self._drop_last = drop_last
        self._generator = generator

    @property
    def owners(self) -> list[str]:
        """The names of the owners."""
        return list(self._tensors[0].shards)

    def __len__(self) -> int:
        return sum(len(self._places(len(self._tensors[0][name]))) for name in self.owners)

    def __iter__(self) -> Iterator[Batch]:
        passes = [self.of(name) for name in self.owners]
        for turn in zip_longest(*passes):
            yield from (batch for batch in turn if batch is not None)

    def of(self, owner: str) -> Iterator[Batch]:
        """Yield the batches of one owner, for a recorded step's `repeat`."""
        shards = [each[owner] for each in self._tensors]
        rows = len(shards[0])
        if not self._shuffle:
            for start in self._places(rows):
                yield tuple(shard[start : start + self._size] for shard in shards)
            return
        worker = shards[0].location
        order = worker.send(torch.randperm(rows, generator=self._generator))
        for start in self._places(rows):
            numbers = order[start : start + self._size]
            yield tuple(shard.index_select(0, numbers) for shard in shards)  # type: ignore[misc]

    def _places(self, rows: int) -> range:
        return range(0, rows - self._size + 1 if self._drop_last else rows, self._size)

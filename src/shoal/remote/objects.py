"""The tensors that a worker keeps for one client: counted by storage, capped, each with the label of its data."""

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, TypeAlias

import torch

from shoal.core.errors import BadRequest, OverLimit
from shoal.remote.failures import Failure
from shoal.remote.labels import OWN, Label
from shoal.remote.limits import Limits

if TYPE_CHECKING:
    from shoal.remote.provenance import Lineage, Made, Source

Geometry: TypeAlias = tuple[int, tuple[int, ...], tuple[int, ...], torch.dtype]


@dataclass(slots=True)
class Storage:
    """Memory that one or more tensors look at; what is written into one of them is in all."""

    nbytes: int
    label: Label
    uses: int = 0
    source: "Source | None" = None
    """Of which rows of the owner's it is an untouched copy."""
    made: "dict[Geometry, Made]" = field(default_factory=dict)
    """Which results of a program lie in it, by the part that each shows."""
    lineage: "Lineage | None" = None
    """By which training it was written, and by nothing else."""
    tickets: dict[Geometry, str] = field(default_factory=dict)
    """The requests for what it holds now, by the part of it that was asked for."""
    digests: dict[Geometry, str] = field(default_factory=dict)
    """Of what it holds now, as far as they were asked for."""

    def written(self, label: Label) -> None:
        """Take note that something wrote into it that read data of a label."""
        self.label, self.source, self.lineage = label, None, None
        self.made.clear()
        self.tickets.clear()
        self.digests.clear()


@dataclass(slots=True)
class Held:
    """A tensor at the worker."""

    tensor: torch.Tensor
    storage: Storage
    key: int

    @property
    def geometry(self) -> Geometry:
        """Which part of its memory it shows."""
        tensor = self.tensor
        return geometry(tensor)

    @property
    def made(self) -> "Made | None":
        """Which result of a program it is, as it was returned and not a part of the same memory."""
        return self.storage.made.get(self.geometry)

    @property
    def lineage(self) -> "Lineage | None":
        """By which training it was written, if it is what that training wrote and not another view of its memory."""
        lineage = self.storage.lineage
        return lineage if lineage is not None and lineage.geometry == self.geometry else None


def geometry(tensor: torch.Tensor) -> Geometry:
    """Return which part of its memory a tensor shows, and how."""
    return int(tensor.storage_offset()), tuple(tensor.shape), tensor.stride(), tensor.dtype


class Poisoned(Exception):
    """An input is the result of something that failed before."""

    def __init__(self, failure: Failure) -> None:
        super().__init__(failure)
        self.failure = failure


class Objects:
    """One client's tensors by number."""

    def __init__(self, limits: Limits) -> None:
        self._limits = limits
        self._held: dict[int, Held | Failure] = {}
        self._storages: dict[int, Storage] = {}
        self._bytes = 0

    def __len__(self) -> int:
        return len(self._held)

    @property
    def nbytes(self) -> int:
        """The bytes of all storages."""
        return self._bytes

    def find(self, ident: int) -> Held:
        """Return a tensor. Raises Poisoned for one that could not be made, BadRequest for an unknown number."""
        found = self._held.get(ident)
        if found is None:
            raise BadRequest(f"there is no tensor {ident}", "use handles of this session that were not freed")
        if isinstance(found, Failure):
            raise Poisoned(found)
        return found

    def reserve(self, nbytes: int) -> None:
        """Raise OverLimit where so many more bytes, or one more tensor, would be too much."""
        if self._bytes + nbytes > self._limits.bytes:
            raise OverLimit(
                f"{nbytes} bytes more on top of {self._bytes}",
                f"keep fewer tensors; the worker allows {self._limits.bytes} bytes to a client",
            )
        if len(self._held) >= self._limits.objects:
            raise OverLimit(
                f"{len(self._held)} tensors", f"keep fewer; the worker allows {self._limits.objects} to a client"
            )

    def keep(
        self, ident: int, tensor: torch.Tensor, label: Label, made: "Made | None" = None, source: "Source | None" = None
    ) -> Held:
        """Keep a tensor under a number; `made` and `source` say where new memory comes from.

        On the same storage as others it has their provenance; `label` is that of all that went into it.
        """
        self.free(ident)
        whole = tensor.untyped_storage()
        key = whole._cdata
        storage = self._storages.get(key)
        if storage is None:
            storage = self._storages[key] = Storage(whole.nbytes(), OWN, source=source)
            self._bytes += storage.nbytes
            if made is not None:
                storage.made[geometry(tensor)] = made
        elif made is not None and any(each.key == made.key for each in storage.made.values()):
            storage.made.setdefault(geometry(tensor), made)  # another result of the same run
        storage.uses += 1
        storage.label = label
        held = self._held[ident] = Held(tensor, storage, key)
        return held

    def poison(self, ident: int, failure: Failure) -> None:
        """Remember that what this number stands for could not be made."""
        self.free(ident)
        if len(self._held) >= 2 * self._limits.objects:
            raise BadRequest(f"{len(self._held)} tensors, many of them failed", "stop after the first failure")
        self._held[ident] = failure

    def free(self, ident: int) -> None:
        """Forget a number."""
        held = self._held.pop(ident, None)
        if isinstance(held, Held):
            self.let_go(held)

    def count_again(self, held: Held) -> None:
        """Count the bytes of a storage that an operator may have made larger."""
        grown = held.tensor.untyped_storage().nbytes() - held.storage.nbytes
        held.storage.nbytes += grown
        self._bytes += grown

    def hold(self, held: Held) -> None:
        """Keep a tensor's memory, with its label, also when its number is forgotten."""
        held.storage.uses += 1

    def let_go(self, held: Held) -> None:
        """Keep it no longer than others do."""
        held.storage.uses -= 1
        if not held.storage.uses:
            self._bytes -= held.storage.nbytes
            del self._storages[held.key]

    def clear(self) -> None:
        """Forget everything."""
        self._held.clear()
        self._storages.clear()
        self._bytes = 0

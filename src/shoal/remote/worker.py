"""The handle of a worker: send, search, look at the catalogue."""

import weakref
from collections.abc import Iterable
from contextlib import AbstractContextManager
from typing import Self, TypeVar

import msgspec
import torch

from shoal.remote.catalogue import Entry
from shoal.remote.frames import DTYPES
from shoal.remote.places import at, noted
from shoal.remote.sending import send
from shoal.remote.session import Session
from shoal.remote.shapes import layout
from shoal.remote.tensor import Ref, RemoteTensor
from shoal.remote.traffic import Traffic

T = TypeVar("T")


class Worker:
    """A worker that this process has a session with. As a context, it is closed at the end."""

    def __init__(self, session: Session) -> None:
        self.session = session
        self._tagged: list[RemoteTensor] = []
        """What was sent with tags stays until the session ends, so that it can be found."""
        weakref.finalize(self, session.close)  # also when the process ends: the worker need not wait for the lease

    def __repr__(self) -> str:
        return f"{type(self).__name__}({self.name!r})"

    @property
    def name(self) -> str:
        """What the worker calls itself."""
        return self.session.name

    @property
    def traffic(self) -> Traffic:
        """What crossed the line so far."""
        return self.session.traffic

    def manual_seed(self, seed: int) -> None:
        """Begin this session's stream of random numbers at the worker as `torch.manual_seed(seed)` does here."""
        self.session.seed(seed)

    def sync(self) -> dict[str, int]:
        """Wait until all is done, and return how many objects and bytes this session holds."""
        counts: dict[str, int] = self.session.ask("sync")
        return counts

    def close(self) -> None:
        """End the session; the worker frees what it holds for it."""
        self.session.close()

    def catalogue(self) -> list[Entry]:
        """Return what the owner tells of the data sets here: names, tags, rows, and the layout of each array."""
        return msgspec.convert(self.session.ask("catalogue"), list[Entry])

    def open(self, name: str, array: str = "data") -> RemoteTensor:
        """Return a handle of an array of one of the owner's data sets. Raises NotFound for an unknown one."""
        return self._lent("open", name, array)

    def mock(self, name: str, array: str = "data") -> torch.Tensor:
        """Return made-up rows in the layout of an array of the owner's, to write code with."""
        return self._lent("mock", name, array).get()

    def aggregate(self, name: str, statistic: str = "mean", *, array: str = "data", epsilon: float) -> torch.Tensor:
        """Return the noisy "mean" or "sum" of each column of an array.

        It spends `epsilon` of what the owner granted you for this data set. Differential privacy (Dwork et al. 2006)
        for one row that is replaced by another, in which each column stays in the range that the owner said of it.
        Raises NotPermitted, NotFound, ConfigurationError for columns without a range.
        """
        return self._lent("aggregate", name, array, statistic=statistic, epsilon=epsilon).get()

    def search(self, *tags: str) -> list[RemoteTensor]:
        """Return the tensors that have all these tags: the owner's, and what this session sent."""
        owners = [
            self.open(entry.name, array)
            for entry in self.catalogue()
            for array in entry.arrays
            if set(tags) <= {*entry.tags, f"#{array}"}
        ]
        return owners + [each for each in self._tagged if set(tags) <= set(each.tags)]

    def _lent(self, what: str, name: str, array: str, **more: object) -> RemoteTensor:
        ref = Ref(noted(self))
        told = self.session.ask(what, name=name, array=array, ident=ref.ident, **more)
        shape = told["shape"]
        return RemoteTensor(ref, layout(torch.empty(shape, dtype=DTYPES[told["dtype"]], device="meta")))

    def here(self) -> AbstractContextManager[None]:
        """Return a context in which `torch.zeros(3, device="remote")` and its like are made at this worker."""
        return at(self)

    def send(self, thing: T, *, tags: tuple[str, ...] = (), description: str = "") -> T:
        """Send a tensor, a module or a data set here; see `shoal.send`."""
        sent = send(thing, self, tags=tags, description=description)
        if tags and isinstance(sent, RemoteTensor):
            self._tagged.append(sent)
        return sent

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


def search(workers: Iterable[Worker], *tags: str) -> dict[str, list[RemoteTensor]]:
    """Return, by the name of each worker, the tensors there that have all these tags."""
    return {worker.name: worker.search(*tags) for worker in workers}

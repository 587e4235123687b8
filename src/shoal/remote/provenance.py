"""Where what a worker holds comes from: rows of a data set as the owner gave them, a program's result, or a training.

Grants are about these: a program's key binds its text, the arrays that it read and all that the client gave it, so
that nothing else can be had under its approval. What is not exactly one of the three has no provenance.
"""

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from shoal.remote.arriving import raw
from shoal.remote.frames import NAMES

if TYPE_CHECKING:
    from shoal.remote.objects import Geometry, Held
    from shoal.remote.program import Program

Weights = np.ndarray[Any, np.dtype[np.float64]]
Rows = np.ndarray[Any, np.dtype[np.int64]]

TAKES = ("aten.index.Tensor", "aten.index_select.default")
"""Operators that copy whole rows, by numbers."""
JOINS = ("aten.stack.default", "aten.cat.default")
"""Operators that copy rows, or tensors of rows, one after the other."""


@dataclass(frozen=True, slots=True)
class Source:
    """Memory that holds rows of a data set's array, untouched: `taken` are their numbers in order, None for all."""

    data: str
    array: str
    count: int
    size: int
    """Numbers in a row."""
    dtype: torch.dtype
    taken: Rows | None = None

    def rows(self, tensor: torch.Tensor) -> Rows | None:
        """Return which rows a tensor over this memory shows, None when it does not show whole rows in order."""
        of = self.count if self.taken is None else len(self.taken)
        wide = tensor.numel() // len(tensor) if tensor.dim() and len(tensor) else 0
        first, odd = divmod(int(tensor.storage_offset()), self.size) if self.size else (0, 1)
        if tensor.dtype != self.dtype or wide != self.size or odd or not tensor.is_contiguous():
            return None
        if first + len(tensor) > of:
            return None
        shown = np.arange(first, first + len(tensor))
        return shown if self.taken is None else self.taken[shown]


@dataclass(frozen=True, slots=True)
class Made:
    """Result number `place` of a program that read whole arrays of the owner's and what the client gave."""

    key: str
    place: int
    text: str
    inputs: tuple[str, ...]


@dataclass(slots=True)
class Lineage:
    """A client's own array that one program trained and nothing else wrote: how often, over which rows.

    It is number `place` of those that the program writes.
    """

    key: str
    place: int
    text: str
    inputs: tuple[str, ...]
    geometry: "Geometry"
    start: torch.Tensor
    state: bool
    """Whether the program writes it before it reads it, as a gradient, a moment or a running statistic."""
    steps: int = 0
    weights: dict[tuple[str, int], Weights] = field(default_factory=dict[tuple[str, int], Weights])
    """For each array that it reads rows from, what part each row had in the steps so far, summed."""

    @property
    def rows(self) -> dict[str, int]:
        """How many rows of each data set it was trained on: those with at least half the part of the one with most.

        Of several arrays of one data set, the one with the fewest counts.
        """
        found: dict[str, int] = {}
        for (data, _), weights in self.weights.items():
            shared = int((weights * 2 >= weights.max()).sum())
            found[data] = min(found.get(data, shared), shared)
        return found

    def step(self, rows: Sequence[tuple[int, Source, Rows]]) -> None:
        """Count a step over these rows."""
        self.steps += 1
        for at, source, shown in rows:
            weights = self.weights.setdefault((source.data, at), np.zeros(source.count))
            np.add.at(weights, shown, 1 / len(shown))

    def begin_again(self, start: torch.Tensor) -> None:
        """Count from what has left: the next release is as far from it as this one was from its start."""
        self.start, self.steps, self.weights = start, 0, {}


def value_key(tensor: torch.Tensor) -> str:
    """Return the digest of a value: dtype, shape and every bit."""
    found = hashlib.sha256(f"{NAMES[tensor.dtype]}{list(tensor.shape)}".encode())
    found.update(raw(tensor))
    return found.hexdigest()


def taken(operator: str, args: Sequence[Any], sources: Mapping[int, Source | None]) -> Source | None:
    """Return the source of what an operator copied, where it took whole rows by numbers that are the client's own.

    `sources` are those of the owner's arrays by the tensor's id, None for one that is not untouched.
    """
    if operator in TAKES and isinstance(args[0], torch.Tensor):
        return _indexed(operator, args, sources)
    first = args[0] if operator in JOINS else None
    if not isinstance(first, list) or not first or (len(args) > 1 and args[1] != 0):
        return None
    found = [sources.get(id(each)) for each in first]
    whole = found[0]
    shown: list[Rows] = []
    for each, source in zip(first, found, strict=True):
        rows = None if source is None else source.rows(each[None] if operator == JOINS[0] else each)
        if whole is None or source is None or rows is None or (source.data, source.array) != (whole.data, whole.array):
            return None
        shown.append(rows)
    return None if whole is None else replace(whole, taken=np.concatenate(shown))


def _indexed(operator: str, args: Sequence[Any], sources: Mapping[int, Source | None]) -> Source | None:
    source = sources.get(id(args[0]))
    numbers = args[1][0] if operator == TAKES[0] and len(args[1]) == 1 else args[-1]
    by_row = operator == TAKES[0] or args[1] == 0
    if source is None or not by_row or not isinstance(numbers, torch.Tensor) or numbers.dtype != torch.int64:
        return None
    shown = source.rows(args[0])
    if shown is None or numbers.dim() != 1 or id(numbers) in sources:
        return None
    return replace(source, taken=shown[numbers.numpy()])


@dataclass(slots=True)
class Run:
    """One run of a program over private data, as far as grants may be about it."""

    key: str
    inputs: tuple[str, ...]
    text: str
    rows: list[tuple[int, Source, Rows]]
    training: bool

    def made(self, place: int) -> Made | None:
        """Return what its result of this number is."""
        return None if self.training else Made(self.key, place, self.text, self.inputs)

    def trained(self, held: "Held", start: torch.Tensor | None, place: int, *, state: bool) -> None:
        """Count a step for the array of this number; `start` is what it was before the first one."""
        storage = held.storage
        if start is not None:
            storage.lineage = Lineage(self.key, place, self.text, self.inputs, held.geometry, start, state)
        lineage = held.lineage
        if lineage is None or (lineage.key, lineage.place) != (self.key, place):
            storage.lineage = None
            return
        lineage.step(self.rows)


def about(program: "Program", given: Sequence["Held"]) -> Run | None:
    """Return what a run of a program is, before it runs; None where no grant can be about it."""
    if program.changed_inputs:
        return None
    training = bool(program.changed)
    trained = {id(held) for held in program.changed}
    inputs, rows = [], []
    for at, held in enumerate((*given, *program.outside)):
        if id(held) in trained:  # these change with every step; all else that is given is part of what is approved
            if held.storage.label.private and held.lineage is None:
                return None
            inputs.append("own")
            continue
        if not held.storage.label.private:
            inputs.append(f"own {_digest(held)}")
            continue
        source = held.storage.source
        shown = None if source is None else source.rows(held.tensor)
        if source is None or shown is None:
            return None
        if not training and (source.taken is not None or len(shown) != source.count):
            return None
        rows.append((at, source, shown))
        inputs.append(_said(source, held.tensor, whole=not training))
    if program.random:
        inputs.append("random numbers from a seed that the client may choose")
    key = hashlib.sha256(json.dumps([program.text, inputs]).encode()).hexdigest()
    return Run(key, tuple(inputs), program.text, rows, training)


def _digest(held: "Held") -> str:
    found = held.storage.digests.get(held.geometry)
    if found is None:
        found = held.storage.digests[held.geometry] = value_key(held.tensor)
    return found


def _said(source: Source, tensor: torch.Tensor, *, whole: bool) -> str:
    first = tensor.shape[0] if whole else "*"
    form = ", ".join(map(str, (first, *tensor.shape[1:])))
    array = f"{source.data}.{source.array} {NAMES[source.dtype]}[{form}]"
    return array if whole else f"rows of {array}"


def starts(program: "Program", run: Run) -> list[torch.Tensor | None]:
    """Return copies of the arrays that a training is about to write for the first time."""
    return [
        held.tensor.detach().clone() if run.training and not held.storage.label.private else None
        for held in program.changed
    ]

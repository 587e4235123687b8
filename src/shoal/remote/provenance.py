"""Where what a worker holds comes from: rows of a data set as the owner gave them, a program's result, or a training.

Grants are about these: a program's key binds its text, the arrays that it read and all that the client gave it, so
that nothing else can be had under its approval. What is not exactly one of the three has no provenance.
"""

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from shoal.remote.arriving import raw
from shoal.remote.frames import NAMES

if TYPE_CHECKING:
    from shoal.remote.objects import Held
    from shoal.remote.program import Program

Mask = np.ndarray[Any, np.dtype[np.bool_]]
Rows = np.ndarray[Any, np.dtype[np.int64]]

TAKES = ("aten.index.Tensor", "aten.index_select.default")
"""Operators that copy whole rows, by numbers."""


@dataclass(frozen=True, slots=True)
class Source:
    """Memory that holds rows of a data set's array, untouched: `taken` are their numbers in order, None for all."""

    data: str
    array: str
    count: int
    size: int
    """Numbers in a row."""
    taken: Rows | None = None

    def rows(self, tensor: torch.Tensor) -> Rows | None:
        """Return which rows a tensor over this memory shows, None when it does not show whole rows in order."""
        of = self.count if self.taken is None else len(self.taken)
        wide = tensor.numel() // len(tensor) if tensor.dim() and len(tensor) else 0
        first, odd = divmod(int(tensor.storage_offset()), self.size) if self.size else (0, 1)
        if wide != self.size or odd or not tensor.is_contiguous() or first + len(tensor) > of:
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
    start: torch.Tensor
    steps: int = 0
    seen: dict[str, Mask] = field(default_factory=dict[str, Mask])

    @property
    def rows(self) -> dict[str, int]:
        """How many rows of each data set it was trained on."""
        return {data: int(mask.sum()) for data, mask in self.seen.items()}

    def begin_again(self, start: torch.Tensor) -> None:
        """Count from what has left: the next release is as far from it as this one was from its start."""
        self.start, self.steps, self.seen = start, 0, {}


def value_key(tensor: torch.Tensor) -> str:
    """Return the digest of a value: dtype, shape and every bit."""
    found = hashlib.sha256(f"{NAMES[tensor.dtype]}{list(tensor.shape)}".encode())
    found.update(raw(tensor))
    return found.hexdigest()


def taken(operator: str, args: Sequence[Any], sources: Mapping[int, Source]) -> Source | None:
    """Return the source of what an operator copied, where it took whole rows by numbers that are the client's own.

    `sources` are those of untouched arrays, by the tensor's id.
    """
    if operator not in TAKES or not isinstance(args[0], torch.Tensor):
        return None
    source = sources.get(id(args[0]))
    numbers = args[1][0] if operator == TAKES[0] and len(args[1]) == 1 else args[-1]
    by_row = operator == TAKES[0] or args[1] == 0
    if source is None or not by_row or not isinstance(numbers, torch.Tensor) or numbers.dtype != torch.int64:
        return None
    shown = source.rows(args[0])
    if shown is None or numbers.dim() != 1:
        return None
    return Source(source.data, source.array, source.count, source.size, shown[numbers.numpy()])


@dataclass(slots=True)
class Run:
    """One run of a program over private data, as far as grants may be about it."""

    key: str
    inputs: tuple[str, ...]
    text: str
    rows: list[tuple[Source, Rows]]
    training: bool

    def made(self, place: int) -> Made | None:
        """Return what its result of this number is."""
        return None if self.training else Made(self.key, place, self.text, self.inputs)

    def trained(self, held: "Held", start: torch.Tensor | None, place: int) -> None:
        """Count a step for the array of this number; `start` is what it was before the first one."""
        storage = held.storage
        if start is not None:
            storage.lineage = Lineage(self.key, place, self.text, self.inputs, start)
        lineage = storage.lineage
        if lineage is None or (lineage.key, lineage.place) != (self.key, place):
            storage.lineage = None
            return
        lineage.steps += 1
        for source, rows in self.rows:
            lineage.seen.setdefault(source.data, np.zeros(source.count, np.bool_))[rows] = True


def about(program: "Program", given: Sequence["Held"]) -> Run | None:
    """Return what a run of a program is, before it runs; None where no grant can be about it."""
    training = bool(program.changed) and not program.changed_inputs
    if program.changed_inputs:
        return None
    inputs, rows = [], []
    for held in (*given, *program.outside):
        if not held.storage.label.private:
            # a training's own arrays change with every step; what a function is given is part of what is approved
            inputs.append("own" if training else f"own {value_key(held.tensor)}")
            continue
        source = held.storage.source
        shown = None if source is None else source.rows(held.tensor)
        if source is not None and shown is not None:
            rows.append((source, shown))
            whole = source.taken is None and len(shown) == source.count
            if not whole and not training:
                return None
            inputs.append(
                f"{source.data}.{source.array}" if whole and not training else f"rows of {source.data}.{source.array}"
            )
        elif training and held.storage.lineage is not None:
            inputs.append("own")
        else:
            return None
    text = json.dumps([program.text, inputs])
    key = hashlib.sha256(text.encode()).hexdigest()
    return Run(key, tuple(inputs), program.text, rows, training)


def starts(program: "Program", run: Run) -> list[torch.Tensor | None]:
    """Return copies of the arrays that a training is about to write for the first time."""
    return [
        held.tensor.detach().clone() if run.training and not held.storage.label.private else None
        for held in program.changed
    ]

"""A device's own model, which stays on it: its arrays, durable and sealed, from one start to the next."""

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path

import msgspec

from shoal.agent.sealed import Seal
from shoal.core.task import ArraySpec
from shoal.core.tree import Array, Tree, layout
from shoal.store.durable import write_durably
from shoal.wire.codec import decode_tree, encode_trees, split_trees

FILE = "personal"
NEXT = "personal.next"


@dataclass(frozen=True, slots=True, eq=False)
class Personal:
    """The personal model, and what goes with the global one.

    `arrays` are those of the personal model that training moves, travelling and local ones: none before it was trained.
    `local` are the local arrays that the last assignment left, which complete the global model here; none before.
    `base` is the digest of the version that the personal model came from, `trainings` counts how often it was trained.
    """

    arrays: Tree = field(default_factory=dict[str, Array])
    local: Tree = field(default_factory=dict[str, Array])
    base: str = ""
    trainings: int = 0

    def fits(self, arrays: Mapping[str, ArraySpec]) -> bool:
        """Whether these are arrays of a model that is described so; not when the app brought another model."""
        described = {name: (spec.dtype, spec.shape) for name, spec in arrays.items()}
        return layout(self.arrays).items() <= described.items() and layout(self.local).items() <= described.items()


@dataclass(frozen=True, slots=True)
class _Head:
    base: str
    trainings: int
    assignment: str = ""


class PersonalFile:
    """Keeps a `Personal` in a device's home.

    What an assignment made of it is proposed, and becomes the present one once the assignment's report is durable: a
    device that dies before trains once more from where it was, one that dies after does not train twice on the same.
    """

    def __init__(self, folder: Path, seal: Seal) -> None:
        self._path = folder / FILE
        self._next = folder / NEXT
        self._seal = seal
        self.now = self._load(self._path)[1] if self._path.exists() else Personal()

    def keep(self, personal: Personal) -> None:
        """Make this the present one, durable on return."""
        self._write(self._path, personal, "")
        self._next.unlink(missing_ok=True)
        self.now = personal

    def propose(self, personal: Personal, assignment: str) -> None:
        """Keep what an assignment makes of it, until `settle`."""
        self._write(self._next, personal, assignment)

    def settle(self, assignment: str) -> None:
        """Make what was proposed for this assignment, if anything, the present one."""
        if not self._next.exists():
            return
        head, proposed = self._load(self._next)
        if head.assignment == assignment:
            self._next.replace(self._path)
            self.now = proposed

    def _write(self, path: Path, personal: Personal, assignment: str) -> None:
        head = msgspec.json.encode(_Head(personal.base, personal.trainings, assignment))
        body = encode_trees({"arrays": personal.arrays, "local": personal.local})
        write_durably(path, [self._seal.seal(head + b"\n" + body, FILE)], 0o600)

    def _load(self, path: Path) -> tuple[_Head, Personal]:
        text, _, body = self._seal.open(path.read_bytes(), FILE).partition(b"\n")
        head = msgspec.json.decode(text, type=_Head)
        trees = split_trees(decode_tree(body))
        return head, Personal(trees.get("arrays", {}), trees.get("local", {}), head.base, head.trainings)


def trained(before: Personal, arrays: Tree, local: Tree, base: str) -> Personal:
    """Return what a training made: `arrays` of the personal model, or {} where it stays as it was."""
    if not arrays:
        return replace(before, local=local)
    return Personal(arrays, local, base, before.trainings + 1)

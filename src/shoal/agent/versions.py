"""The version that a device serves and the one before, with all that it takes to use them without a coordinator."""

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from hashlib import sha256
from pathlib import Path

import msgspec

from shoal.agent.sealed import Seal
from shoal.core.errors import WrongKey
from shoal.core.roles import Role
from shoal.core.task import ArraySpec, TaskSpec
from shoal.core.tree import Array
from shoal.core.types import ModelVersion
from shoal.store.durable import write_durably
from shoal.wire.codec import decode_tree
from shoal.wire.models import read_tree

FOLDER = "model"
RECORD = "version"


@dataclass(frozen=True, slots=True)
class Held:
    """Which task a device takes part in, by its plan or by the app's code, and a version that it has of its model."""

    task: str
    spec: TaskSpec
    version: ModelVersion
    by_plan: bool = False

    @property
    def frozen(self) -> dict[str, ArraySpec]:
        """The arrays that are fixed for the task."""
        return {name: array for name, array in self.spec.arrays.items() if array.role is Role.FROZEN}

    @property
    def digests(self) -> set[str]:
        """What has to lie beside it: the version, and what proves the app's code, or the plan, at every start."""
        proof = self.spec.exported if self.by_plan else self.spec.initial
        return {self.version.digest, self.spec.frozen, self.spec.golden, proof}


@dataclass(frozen=True, slots=True, eq=False)
class Trees:
    """What is behind a `Held`: the arrays of the version, the frozen ones, the golden step of the task's code.

    A device with the app's code has those of version 0 too, one without has the plan's bytes.
    """

    version: Mapping[str, Array]
    frozen: Mapping[str, Array]
    golden: Mapping[str, Array]
    initial: Mapping[str, Array] = field(default_factory=dict[str, Array])
    exported: bytes = b""


@dataclass(frozen=True, slots=True)
class _Record:
    held: Held | None = None
    former: Held | None = None
    # why a version is not served here, by its digest
    refused: Mapping[str, str] = field(default_factory=dict[str, str])

    @property
    def digests(self) -> set[str]:
        return {digest for one in (self.held, self.former) if one is not None for digest in one.digests}


class VersionFiles:
    """Keeps two `Held`, the newer one and its predecessor, and their bytes in a device's home, sealed with its key.

    A newer one takes its place when it is there as a whole. One that was damaged gives way to its predecessor.
    """

    def __init__(self, home: Path, seal: Seal) -> None:
        self._folder = home / FOLDER
        self._folder.mkdir(mode=0o700, exist_ok=True)
        self._seal = seal
        self._record = self._read()

    def _read(self) -> _Record:
        data = self._opened(RECORD)
        return _Record() if data is None else msgspec.json.decode(data, type=_Record)

    def _opened(self, name: str) -> bytes | None:
        path = self._folder / name
        try:
            return self._seal.open(path.read_bytes(), name) if path.exists() else None
        except WrongKey:
            return None  # damaged: the home's key was proved before

    def load(self) -> Held | None:
        """Return the newest that is complete and sound, or None: it is then fetched again."""
        both = (self._record.held, self._record.former)
        return next((one for one in both if one is not None and self._complete(one)), None)

    def _complete(self, held: Held) -> bool:
        return all(self.blob(digest) is not None for digest in held.digests)

    def blob(self, digest: str) -> bytes | None:
        """Return bytes by their digest, None when there are none or they were damaged."""
        data = self._opened(digest)
        return data if data is not None and sha256(data).hexdigest() == digest else None

    def keep(self, held: Held, blobs: Mapping[str, bytes]) -> None:
        """Put this before what was held, which becomes the predecessor. `blobs` are those of its digests, verified."""
        for digest in sorted(held.digests):
            if self.blob(digest) is None:
                self._write(digest, blobs[digest])
        former = self.load()
        self._keep_record(replace(self._record, held=held, former=former if former != held else self._record.former))
        for path in self._folder.iterdir():
            if path.name != RECORD and path.name not in self._record.digests:
                path.unlink()

    @property
    def refused(self) -> Mapping[str, str]:
        """Why versions are not served here, by digest."""
        return self._record.refused

    def refuse(self, digest: str, reason: str) -> None:
        """Remember, durably, that a version does not work here."""
        self._keep_record(replace(self._record, refused={**self._record.refused, digest: reason}))

    def _keep_record(self, record: _Record) -> None:
        self._write(RECORD, msgspec.json.encode(record))
        self._record = record

    def _write(self, name: str, data: bytes) -> None:
        write_durably(self._folder / name, [self._seal.seal(data, name)], 0o600)


def read_trees(held: Held, blobs: Mapping[str, bytes]) -> Trees:
    """Return the arrays of these bytes. Raises TaskError for a version that is not of its task."""
    spec = held.spec
    version = read_tree(blobs[held.version.digest], spec.travelling)
    frozen, golden = read_tree(blobs[spec.frozen], held.frozen), decode_tree(blobs[spec.golden])
    if held.by_plan:
        return Trees(version, frozen, golden, exported=blobs[spec.exported])
    return Trees(version, frozen, golden, initial=read_tree(blobs[spec.initial], spec.travelling))

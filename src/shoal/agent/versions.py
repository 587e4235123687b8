"""The newest version that a device has, with all it needs to use it where no coordinator can be reached."""

from collections.abc import Mapping
from dataclasses import dataclass
from hashlib import sha256
from pathlib import Path

import msgspec

from shoal.core.roles import Role
from shoal.core.task import ArraySpec, TaskSpec
from shoal.core.tree import Array
from shoal.core.types import ModelVersion
from shoal.store.durable import write_durably
from shoal.wire.codec import decode_tree
from shoal.wire.models import read_tree

FOLDER = "model"
RECORD = "version.json"


@dataclass(frozen=True, slots=True)
class Held:
    """Which task a device takes part in, and the newest version that it has of its model."""

    task: str
    spec: TaskSpec
    version: ModelVersion

    @property
    def frozen(self) -> dict[str, ArraySpec]:
        """The arrays that are fixed for the task."""
        return {name: array for name, array in self.spec.arrays.items() if array.role is Role.FROZEN}

    @property
    def digests(self) -> set[str]:
        """What has to lie beside it: the version, and what proves the app's code at every start."""
        return {self.version.digest, self.spec.initial, self.spec.frozen, self.spec.golden}


@dataclass(frozen=True, slots=True, eq=False)
class Trees:
    """The arrays behind a `Held`: the version's, those of version 0, the frozen ones and the golden step."""

    version: Mapping[str, Array]
    initial: Mapping[str, Array]
    frozen: Mapping[str, Array]
    golden: Mapping[str, Array]


class VersionFiles:
    """Keeps one `Held` and its bytes in a device's home, until a newer one is there as a whole."""

    def __init__(self, home: Path) -> None:
        self._folder = home / FOLDER
        self._folder.mkdir(mode=0o700, exist_ok=True)

    def load(self) -> Held | None:
        """Return what is held, or None when it was never complete or was damaged: it is then fetched again."""
        record = self._folder / RECORD
        if not record.exists():
            return None
        held = msgspec.json.decode(record.read_bytes(), type=Held)
        return held if all(self.blob(digest) is not None for digest in held.digests) else None

    def blob(self, digest: str) -> bytes | None:
        """Return bytes by their digest, None when there are none or they were damaged."""
        path = self._folder / digest
        data = path.read_bytes() if path.exists() else b""
        return data if sha256(data).hexdigest() == digest else None

    def keep(self, held: Held, blobs: Mapping[str, bytes]) -> None:
        """Put this in the place of what was held. `blobs` are those of its digests, verified."""
        for digest in sorted(held.digests):
            if self.blob(digest) is None:
                write_durably(self._folder / digest, [blobs[digest]], 0o600)
        write_durably(self._folder / RECORD, [msgspec.json.encode(held)], 0o600)
        for path in self._folder.iterdir():
            if path.name != RECORD and path.name not in held.digests:
                path.unlink()


def read_trees(held: Held, blobs: Mapping[str, bytes]) -> Trees:
    """Return the arrays of these bytes. Raises TaskError for a version that is not of its task."""
    spec = held.spec
    version = read_tree(blobs[held.version.digest], spec.travelling)
    initial = read_tree(blobs[spec.initial], spec.travelling)
    return Trees(version, initial, read_tree(blobs[spec.frozen], held.frozen), decode_tree(blobs[spec.golden]))

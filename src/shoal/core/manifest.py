"""Where a result comes from: what a second run needs to give the same digests."""

import hashlib
import hmac
import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, replace
from typing import Any

from shoal.core.origin import Origin
from shoal.core.task import TaskSpec
from shoal.core.tree import Tree, pieces


@dataclass(frozen=True, slots=True)
class Manifest:
    """Everything that a task's versions follow from.

    `spec` is the digest of the task as it was published, `configuration` the task itself as plain data. Two runs with
    equal manifests, the task's id apart, give versions with equal digests.
    """

    task: str
    spec: str
    seed: int
    configuration: Mapping[str, Any]
    researcher: Origin
    owners: Mapping[str, Origin] = field(default_factory=dict[str, Origin])

    @property
    def digest(self) -> str:
        """Return the SHA-256 of everything but the task's id, which says only how often a name was published."""
        return _digest({**asdict(self), "task": ""})


def manifest(task: str, spec: TaskSpec, owners: Mapping[str, Origin]) -> Manifest:
    """Return the manifest of a task, with what its owners said of themselves by device name."""
    configuration = asdict(replace(spec, origin=Origin()))
    del configuration["origin"]
    return Manifest(task, spec_digest(spec), spec.seed, configuration, spec.origin, dict(sorted(owners.items())))


def spec_digest(spec: TaskSpec) -> str:
    """Return the SHA-256 of a task as it was published, without who published it where."""
    return _digest(asdict(replace(spec, origin=Origin())))


def data_digest(spec: TaskSpec, arrays: Tree) -> str:
    """Return a digest of rows that differs from task to task: HMAC-SHA256 keyed with the task's own digest.

    Whoever knows the task and can guess all rows can confirm the guess, so it leaves only where the owner lets it.
    """
    mac = hmac.new(bytes.fromhex(spec_digest(spec)), digestmod=hashlib.sha256)
    for piece in pieces(arrays):
        mac.update(piece)
    return mac.hexdigest()


def _digest(plain: Any) -> str:
    return hashlib.sha256(json.dumps(plain, sort_keys=True, separators=(",", ":")).encode()).hexdigest()

"""A plan as bytes: one canonical tree of arrays, so that it has one digest and every reader of models reads it."""

import json
from collections.abc import Mapping
from dataclasses import asdict
from functools import cached_property
from pathlib import Path
from typing import Any

import msgspec
import numpy as np

from shoal.core.errors import PlanError, ShoalError
from shoal.core.roles import Role
from shoal.core.task import ArraySpec
from shoal.core.tree import Array, Tree, digest, encode
from shoal.plan.manifest import FORMAT, Manifest
from shoal.plan.operators import operators, read
from shoal.wire.codec import decode_tree

GRAPHS = ("train", "predict", "evaluate")
MOST_BYTES = 64 << 20
"""Larger plans are not read: a plan holds no weights."""


class PlanFile:
    """A manifest, its graphs as ONNX files, and a golden step. Every graph was checked, operator by operator.

    Raises PlanError for a plan that is not whole, or holds what none may.
    """

    def __init__(self, manifest: Manifest, graphs: Mapping[str, bytes], golden: Tree) -> None:
        self.manifest = manifest
        self.graphs = dict(graphs)
        self.golden = dict(golden)
        _check(self)

    @cached_property
    def tree(self) -> Tree:
        """The plan as arrays: "manifest", "graph/..." as bytes, "golden/..."."""
        text = json.dumps(asdict(self.manifest), sort_keys=True, separators=(",", ":")).encode()
        return {
            "manifest": np.frombuffer(text, np.uint8),
            **{f"graph/{name}": np.frombuffer(graph, np.uint8) for name, graph in self.graphs.items()},
            **{f"golden/{name}": array for name, array in self.golden.items()},
        }

    @cached_property
    def digest(self) -> str:
        """The SHA-256 of the plan's bytes."""
        return digest(self.tree)

    def encoded(self) -> bytes:
        """Return the plan's bytes."""
        return encode(self.tree)

    def check_arrays(self, arrays: Mapping[str, ArraySpec]) -> None:
        """Raise PlanError unless the plan is for a model of these arrays."""
        mine = {entry.name: ArraySpec(entry.shape, entry.dtype, entry.role) for entry in self.manifest.arrays}
        wrong = sorted(name for name in mine.keys() | arrays.keys() if mine.get(name) != arrays.get(name))
        if wrong:
            raise PlanError(f"the plan's arrays {wrong} are not the task's", "publish the task again")


def parsed(data: bytes) -> PlanFile:
    """Return the plan that these bytes hold. Raises PlanError."""
    if len(data) > MOST_BYTES:
        raise PlanError(f"a plan of {len(data)} bytes", f"a plan holds no weights: {MOST_BYTES} bytes are the most")
    try:
        tree = decode_tree(data)
        manifest = _manifest(tree)
    except PlanError:
        raise
    except ShoalError as error:
        raise PlanError(f"the plan cannot be read: {error.problem}", "fetch or export it again") from error
    graphs = {name.removeprefix("graph/"): _bytes(tree[name]) for name in tree if name.startswith("graph/")}
    golden = {name.removeprefix("golden/"): tree[name] for name in tree if name.startswith("golden/")}
    return PlanFile(manifest, graphs, golden)


def read_file(path: Path) -> bytes:
    """Return the bytes of a plan's file. Raises PlanError."""
    try:
        if path.stat().st_size > MOST_BYTES:
            raise PlanError(f"{path} has {path.stat().st_size} bytes", f"{MOST_BYTES} are the most for a plan")
        return path.read_bytes()
    except OSError as error:
        raise PlanError(f"cannot read {path}: {error.strerror}", "check the path and its permissions") from error


def _manifest(tree: Tree) -> Manifest:
    if "manifest" not in tree:
        raise PlanError("a file without a manifest", "give a plan that `save` wrote")
    text = _bytes(tree["manifest"])
    try:
        plain: Any = json.loads(text)
        if plain.get("format") != FORMAT:
            raise PlanError(f"a plan of format {plain.get('format')!r}", f"this Shoal reads format {FORMAT}")
        return msgspec.convert(plain, Manifest)
    except (ValueError, AttributeError, msgspec.ValidationError) as error:
        raise PlanError(f"the plan's manifest cannot be read: {error}", "export it again") from error


def _bytes(array: Array) -> bytes:
    if array.dtype != np.uint8 or array.ndim != 1:
        raise PlanError(f"a part of the plan is {array.dtype} {array.shape}, not bytes", "export it again")
    return array.tobytes()


def _check(plan: PlanFile) -> None:
    manifest = plan.manifest
    if set(plan.graphs) != set(manifest.graphs) or not {"train", "predict"} <= set(plan.graphs) <= set(GRAPHS):
        raise PlanError(f"a plan with the graphs {sorted(plan.graphs)}", f"it has {', '.join(GRAPHS)}; export it again")
    for name, data in plan.graphs.items():
        model, entry = read(name, data), manifest.graphs[name]
        declared = (entry.inputs, entry.outputs, entry.operators)
        found = (
            tuple(value.name for value in model.graph.input),
            tuple(value.name for value in model.graph.output),
            operators(model),
        )
        if declared != found:
            raise PlanError(f"graph {name!r} is not what the manifest says of it", "export the plan again")


def roles(manifest: Manifest, *wanted: Role) -> list[str]:
    """Return the names of a plan's arrays that have one of these roles."""
    return [entry.name for entry in manifest.arrays if entry.role in wanted]

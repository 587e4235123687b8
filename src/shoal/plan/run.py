"""Training and predicting by a plan with onnxruntime, on numpy arrays."""

from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeAlias

import numpy as np

from shoal.core.errors import ConfigurationError, NotFinite, PlanError, RuntimeMismatch
from shoal.core.rate import CONSTANT, Rate
from shoal.core.tree import Array, Tree
from shoal.plan.file import PlanFile, parsed, read_file
from shoal.plan.manifest import Dim
from shoal.plan.noise import uniform

if TYPE_CHECKING:
    import onnxruntime

Batch: TypeAlias = "Mapping[str, Array] | tuple[Array, Array]"
Progress = Callable[[], None]

RUNTIMES = ("onnxruntime", "onnxruntime without optimizations")
"""What a plan is run by, the fastest first."""


class Plan(PlanFile):
    """A training step that onnxruntime runs, without torch. Make it with `shoal.plan.export` or `load`."""

    def __init__(self, manifest: Any, graphs: Mapping[str, bytes], golden: Tree, runtime: str = RUNTIMES[0]) -> None:
        super().__init__(manifest, graphs, golden)
        self.runtime = runtime
        self._sessions: dict[str, onnxruntime.InferenceSession] = {}

    def on(self, runtime: str) -> "Plan":
        """Return the same plan, run by another of `RUNTIMES`."""
        return self if runtime == self.runtime else Plan(self.manifest, self.graphs, self.golden, runtime)

    def save(self, path: Path | str) -> None:
        """Write the plan to a file."""
        Path(path).write_bytes(self.encoded())

    def train(
        self,
        params: Tree,
        batches: Iterable[Batch],
        *,
        lr: float | None = None,
        seed: int = 0,
        start: Tree | None = None,
        progress: Progress | None = None,
    ) -> tuple[dict[str, Array], list[float]]:
        """Take one step for each batch and return every array of the model, and the loss before each step.

        `params` holds every array of the model, `lr` overrides the task's learning rate, `seed` draws dropout, `start`
        is what FedProx pulls to (by default `params`). Where the plan takes batches of one size only, larger ones are
        cut and what is left over is dropped. Raises NotFinite, PlanError for arrays that are not the plan's.
        """
        training = Training(self, params, lr=lr, seed=seed, start=start)
        losses = []
        for batch in batches:
            for part in self.parts(named(batch)):
                losses.append(training.step(part))
                if progress is not None:
                    progress()
        return training.arrays, losses

    def predict(self, params: Tree, x: Any) -> Any:
        """Return the model's output for rows `x`, or for a mapping of the arrays that its forward takes."""
        wanted = [name.removeprefix("batch/") for name in self.inputs("predict") if name.startswith("batch/")]
        given = x if isinstance(x, Mapping) else {wanted[0]: x} if wanted else {}
        batch = self.batch({name: np.asarray(array) for name, array in given.items()}, wanted)
        outputs = self._by_parts(params, batch)
        return outputs[0] if len(outputs) == 1 else tuple(outputs)

    def evaluate(self, params: Tree, batch: Batch) -> tuple[dict[str, float], int]:
        """Return the loss and the metrics over the rows of a batch, in evaluation mode, and how many rows were used.

        Each is the mean over batches of at most 1024 rows, weighted by rows. Raises PlanError for a plan without.
        """
        if "evaluate" not in self.graphs:
            raise PlanError("a plan without an evaluation", "export the task again")
        rows = named(batch)
        totals: dict[str, float] = {}
        count = 0
        for part in self.parts(rows, EVALUATED):
            found = self.run("evaluate", {**self._arrays(params), **_prefixed("batch", self.batch(part))})
            size = len(next(iter(part.values())))
            for name, value in found.items():
                key = name.removeprefix("measure/")
                totals[key] = totals.get(key, 0.0) + float(value) * size
            count += size
        return {name: total / count for name, total in totals.items()}, count

    def inputs(self, graph: str) -> tuple[str, ...]:
        """Return the names of a graph's inputs."""
        return self.manifest.graphs[graph].inputs

    def batch(self, given: Mapping[str, Array], wanted: Sequence[str] | None = None) -> dict[str, Array]:
        """Return a batch in the plan's dtypes. Raises PlanError for other arrays or shapes."""
        entries = [entry for entry in self.manifest.batch if wanted is None or entry.name in wanted]
        if given.keys() != {entry.name for entry in entries}:
            raise PlanError(f"a batch of {sorted(given)}", f"the plan takes {[entry.name for entry in entries]}")
        for entry in entries:
            if given[entry.name].shape[1:] != entry.shape:
                raise PlanError(
                    f"batch array {entry.name!r} has rows of shape {given[entry.name].shape[1:]}",
                    f"the plan takes {entry.shape}",
                )
        return {entry.name: np.ascontiguousarray(given[entry.name], entry.dtype) for entry in entries}

    def parts(self, batch: Mapping[str, Array], most: int | None = None) -> Iterable[dict[str, Array]]:
        """Cut rows to what the plan takes at once: its one size, dropping what is left over, or at most `most`."""
        rows = len(next(iter(batch.values())))
        size = self.manifest.rows or most or max(rows, 1)
        for first in range(0, rows, size):
            if self.manifest.rows is None or first + size <= rows:
                yield {name: array[first : first + size] for name, array in batch.items()}

    def run(self, graph: str, given: Mapping[str, Array]) -> dict[str, Array]:
        """Run one graph on arrays by name; those that it does not take are left out."""
        entry = self.manifest.graphs[graph]
        session = self._session(graph)
        try:
            results = session.run(None, {name: given[name] for name in entry.inputs})
        except _own_errors() as error:
            raise _mismatch(error) from error
        return dict(zip(entry.outputs, results, strict=True))

    def _by_parts(self, params: Tree, batch: Mapping[str, Array]) -> list[Array]:
        arrays, rows = self._arrays(params), len(next(iter(batch.values())))
        size = self.manifest.rows or rows
        found = []
        for first in range(0, rows, size):
            part = {name: _filled(array[first : first + size], size) for name, array in batch.items()}
            found.append(list(self.run("predict", {**arrays, **_prefixed("batch", part)}).values()))
        return [np.concatenate(pieces)[: rows * len(pieces[0]) // size] for pieces in zip(*found, strict=True)]

    def _arrays(self, params: Tree) -> dict[str, Array]:
        missing = sorted({entry.name for entry in self.manifest.arrays} - set(params))
        if missing:
            raise PlanError(f"params lack the arrays {missing}", "give every array of the model")
        return {
            f"array/{entry.name}": np.ascontiguousarray(params[entry.name], entry.dtype).reshape(entry.shape)
            for entry in self.manifest.arrays
        }

    def _session(self, graph: str) -> "onnxruntime.InferenceSession":
        if graph not in self._sessions:
            self._sessions[graph] = open_session(self.graphs[graph], self.runtime)
        return self._sessions[graph]


EVALUATED = 1024
"""Rows that are evaluated at once."""


class Training:
    """A model in training: its arrays, its optimizer's state, and how many steps were taken.

    Step t has `rate.at(t)` times the learning rate.
    """

    def __init__(
        self,
        plan: Plan,
        params: Tree,
        *,
        lr: float | None = None,
        rate: Rate = CONSTANT,
        seed: int = 0,
        start: Tree | None = None,
    ) -> None:
        manifest = plan.manifest
        self._plan = plan
        self._seed = seed
        self._values = plan._arrays(params)
        if manifest.proximal:
            self._values |= {
                f"start/{name.removeprefix('array/')}": a for name, a in plan._arrays(start or params).items()
            }
        self._values |= {f"state/{entry.name}": np.zeros(entry.shape, entry.dtype) for entry in manifest.state}
        self._lr = manifest.learning_rate if lr is None else lr
        self._rate = rate
        self.steps = 0

    @property
    def arrays(self) -> dict[str, Array]:
        """Every array of the model as it is now."""
        return {entry.name: self._values[f"array/{entry.name}"] for entry in self._plan.manifest.arrays}

    def step(self, batch: Mapping[str, Array]) -> float:
        """Take one step and return the loss before it. Raises NotFinite."""
        given = self._plan.batch(batch)
        rows = len(next(iter(given.values())))
        noise = {
            f"noise/{index}": uniform(self._seed, self.steps, index, sizes(shape, rows))
            for index, shape in enumerate(self._plan.manifest.noise)
        }
        lr = {"learning_rate": np.asarray(self._lr * self._rate.at(self.steps), np.float32)}
        found = self._plan.run("train", {**self._values, **_prefixed("batch", given), **noise, **lr})
        loss = float(found.pop("loss"))
        if not np.isfinite(loss):
            raise NotFinite(f"step {self.steps}: the loss is {loss}", "lower the learning rate, or check the data")
        for name, array in found.items():
            self._values[name.removeprefix("after/")] = array
        self.steps += 1
        return loss


def load(path: Path | str) -> Plan:
    """Read a plan from a file, every graph checked against what a plan may hold. Raises PlanError."""
    return from_bytes(read_file(Path(path)))


def from_bytes(data: bytes) -> Plan:
    """Return the plan that these bytes hold. Raises PlanError."""
    file = parsed(data)
    return Plan(file.manifest, file.graphs, file.golden)


def sizes(shape: Sequence[Dim], rows: int) -> tuple[int, ...]:
    """Return a shape for a number of rows."""
    return tuple(times * rows + plus for times, plus in shape)


def named(batch: Any) -> dict[str, Array]:
    """Return a batch, given as (x, y) or by name, as arrays by name."""
    if isinstance(batch, Mapping):
        return {str(name): np.asarray(array) for name, array in batch.items()}
    x, y = batch
    return {"x": np.asarray(x), "y": np.asarray(y)}


def _filled(array: Array, rows: int) -> Array:
    return array if len(array) == rows else np.concatenate([array, np.repeat(array[-1:], rows - len(array), axis=0)])


def _prefixed(prefix: str, arrays: Mapping[str, Array]) -> dict[str, Array]:
    return {f"{prefix}/{name}": array for name, array in arrays.items()}


def open_session(graph: bytes, runtime: str = RUNTIMES[0]) -> "onnxruntime.InferenceSession":
    """Return a graph that is ready to run. Raises RuntimeMismatch when the runtime cannot, ConfigurationError."""
    try:
        import onnxruntime
    except ImportError as error:
        raise ConfigurationError("training by plan needs onnxruntime", "pip install 'shoal[onnx]'") from error
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = options.inter_op_num_threads = 1
    options.log_severity_level = 3
    if runtime != RUNTIMES[0]:
        options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL
    try:
        return onnxruntime.InferenceSession(graph, options, providers=["CPUExecutionProvider"])
    except _own_errors() as error:
        raise _mismatch(error) from error


def _own_errors() -> tuple[type[Exception], ...]:
    from onnxruntime.capi import onnxruntime_pybind11_state as state

    return tuple(found for found in vars(state).values() if isinstance(found, type) and issubclass(found, Exception))


def _mismatch(error: Exception) -> RuntimeMismatch:
    return RuntimeMismatch(
        f"onnxruntime cannot carry out a graph: {error}",
        "update onnxruntime, or take part with the task's code and torch",
    )

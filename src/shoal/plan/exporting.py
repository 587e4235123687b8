"""Making a plan: trace the task's step, write it as graphs, and prove them against torch."""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import replace

import numpy as np
import onnx
import torch

from shoal.algorithms.rule import by_plan
from shoal.core.errors import NotExportable, RuntimeMismatch, TaskError
from shoal.core.seeds import derive
from shoal.core.task import LocalPlan
from shoal.core.tree import Array
from shoal.plan.graph import Program, Rows, Size, Value
from shoal.plan.manifest import ArrayEntry, BatchEntry, Dim, Golden, GraphEntry, Manifest, StateEntry
from shoal.plan.onnx import onnx_model
from shoal.plan.operators import operators
from shoal.plan.places import Places
from shoal.plan.proof import golden_of, verified
from shoal.plan.run import Plan, open_session
from shoal.plan.step import RATE, Model, Named, Tensors, evaluating, inputs, predicting, training
from shoal.plan.trace import TRUSTED, Traced, traced
from shoal.train.arrays import tensor
from shoal.train.data import columns
from shoal.train.golden import synthetic_batch
from shoal.train.initial import started
from shoal.train.objective import Measure
from shoal.train.task import Task

GRAPHS = ("train", "predict", "evaluate")
GOLDEN_ROWS = 4
VERIFIED_ROWS = 7
"""Rows of the batch on which the graphs are compared with torch once more, so that no number of rows is special."""


def export(task: Task, *, rows: int | None = None) -> Plan:
    """Return the plan of a task: its training step, its prediction and its measures as ONNX graphs.

    Batches may have any number of rows where the model treats all alike; else, or when `rows` says so, the plan is for
    that one number (by default the local plan's batch size). Raises NotExportable, naming operator, module and line,
    for what cannot be a graph, and when the graphs do not compute what torch does.
    """
    if task.example is None:
        raise TaskError(f"task {task.name!r} has no example", "give one batch: Task(..., example=(x, y))")
    task = started(task)
    rule = task.strategy.rule
    if rule is not None and not by_plan(rule, task.plan):
        raise NotExportable(f"a task whose strategy trains by the rule {rule.name!r}", TRUSTED)
    with _one_thread():
        return _Export(task, rows).plan()


@contextmanager
def _one_thread() -> Iterator[None]:
    """Steps on a few rows lose time to a second thread."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(threads)


class _Export:
    def __init__(self, task: Task, rows: int | None) -> None:
        self._task = task
        self._training = Model(task, training=True)
        self._evaluation = Model(task, training=False)
        self._example = columns(task.example)
        self._rows = rows
        self._unmeasured: dict[str, str] = {}

    def plan(self) -> Plan:
        """Trace all graphs for any number of rows, or all of them for one."""
        size = self._rows or self._task.plan.batch_size
        found = {name: self._traced(name, size, flexible=self._rows is None) for name in GRAPHS}
        fixed = any(graph.rows is not None for graph in found.values())
        if fixed:
            found = {n: g if g.rows is not None else self._traced(n, size, flexible=False) for n, g in found.items()}
        models = {name: onnx_model(name, graph.program) for name, graph in found.items()}
        graphs = {name: model.SerializeToString(deterministic=True) for name, model in models.items()}
        for name, graph in graphs.items():
            _check_opens(name, graph, found[name].program)
        manifest = self._manifest(found["train"].program, models, size if fixed else None)
        golden, rules = golden_of(self._task, manifest, self._batch(size if fixed else GOLDEN_ROWS, 2))
        plan = Plan(replace(manifest, golden=rules), graphs, golden)
        verified(plan, self._task, self._batch(size if fixed else VERIFIED_ROWS, 3))
        return plan

    def _traced(self, name: str, rows: int, *, flexible: bool) -> Traced:
        match name:
            case "train":
                local = self._task.plan
                return self._trace(training(self._training, local), self._training, local, rows, flexible)
            case "predict":
                return self._trace(predicting(self._evaluation), self._evaluation, None, rows, flexible)
            case _:
                return self._measured(rows, flexible)

    def _trace(self, function: Named, model: Model, local: LocalPlan | None, rows: int, flexible: bool) -> Traced:
        def given(size: int, draw: int) -> Tensors:
            return inputs(model, {name: tensor(array) for name, array in self._batch(size, draw).items()}, local)

        return traced(function, given, Places.of(model.module), rows, flexible=flexible)

    def _measured(self, rows: int, flexible: bool) -> Traced:
        """Trace the loss and those metrics that can be; the manifest names the others."""
        metrics = {n: metric for n, metric in self._task.metrics.items() if n not in self._unmeasured}
        try:
            return self._evaluated(metrics, rows, flexible)
        except NotExportable:
            self._unmeasured |= {n: why for n in metrics if (why := self._refused(n, rows, flexible))}
            kept = {name: metric for name, metric in metrics.items() if name not in self._unmeasured}
            return self._evaluated(kept, rows, flexible)

    def _refused(self, metric: str, rows: int, flexible: bool) -> str:
        try:
            self._evaluated({metric: self._task.metrics[metric]}, rows, flexible)
        except NotExportable as error:
            return error.problem
        return ""

    def _evaluated(self, metrics: Mapping[str, Measure], rows: int, flexible: bool) -> Traced:
        measures = {"loss": self._task.loss, **metrics}
        made = self._trace(evaluating(self._evaluation, measures), self._evaluation, None, rows, flexible)
        onnx_model("evaluate", made.program)
        return made

    def _batch(self, rows: int, draw: int) -> dict[str, Array]:
        """Return a batch of numbers of the example's kind, another one for each `draw`."""
        kind = {name: np.resize(array, (rows, *array.shape[1:])) for name, array in self._example.items()}
        return synthetic_batch(kind, derive(0, self._task.name, "plan", rows, draw))

    def _manifest(self, step: Program, models: Mapping[str, onnx.ModelProto], rows: int | None) -> Manifest:
        arrays = self._training.arrays
        example = inputs(self._training, {}, self._task.plan)
        noise = {name: value for name, value in step.inputs.items() if name.startswith("noise/")}
        return Manifest(
            task=self._task.name,
            arrays=tuple(ArrayEntry(name, spec.shape, spec.dtype, spec.role) for name, spec in arrays.items()),
            batch=tuple(BatchEntry(name, a.shape[1:], a.dtype.name) for name, a in sorted(self._example.items())),
            state=tuple(_state(name, value) for name, value in step.inputs.items() if name.startswith("state/")),
            noise=tuple(tuple(_dim(size) for size in value.shape) for value in noise.values()),
            learning_rate=float(example[RATE]),
            graphs={name: _entry(model) for name, model in models.items()},
            golden=Golden(0, 0),
            rows=rows,
            proximal=any(name.startswith("start/") for name in step.inputs),
            unmeasured=self._unmeasured,
        )


def _check_opens(name: str, graph: bytes, program: Program) -> None:
    """Raise NotExportable, with the runtime's own words and the place in the task, for what no runtime carries out."""
    try:
        open_session(graph)
    except RuntimeMismatch:
        try:
            open_session(onnx_model(name, program, named=True).SerializeToString())
        except RuntimeMismatch as error:
            raise NotExportable(error.problem, TRUSTED) from error
        raise


def _state(name: str, value: Value) -> StateEntry:
    return StateEntry(name.removeprefix("state/"), tuple(int(size) for size in value.shape), value.dtype)  # type: ignore[arg-type]


def _dim(size: Size) -> Dim:
    return (size.times, size.plus) if isinstance(size, Rows) else (0, size)


def _entry(model: onnx.ModelProto) -> GraphEntry:
    return GraphEntry(
        tuple(value.name for value in model.graph.input),
        tuple(value.name for value in model.graph.output),
        operators(model),
    )

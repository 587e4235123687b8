"""What must hold of every aggregator, checked on updates made up from a task's own arrays and bounds."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from collections.abc import Set as AbstractSet
from dataclasses import replace
from typing import Any, Literal, TypeAlias, get_args

import numpy as np
from hypothesis import Phase, given, settings
from hypothesis import strategies as st

from shoal.algorithms.aggregator import Aggregator
from shoal.core.errors import Abandoned, RefusedUpdate
from shoal.core.roles import Role
from shoal.core.task import ArraySpec, Bounds, RoundPlan, TaskSpec, weight_units
from shoal.core.tree import Array, Tree, digest
from shoal.core.types import Update

AggregatorLaw: TypeAlias = Literal["order", "result", "mean", "roles", "layout", "finite", "bounds", "weight", "count"]

EVERY_LAW: AbstractSet[AggregatorLaw] = frozenset(get_args(AggregatorLaw))

SPEC = TaskSpec(
    name="laws",
    arrays={
        "weight": ArraySpec((2, 3), "float32"),
        "half": ArraySpec((3,), "float16"),
        "bias": ArraySpec((), "float64"),
        "empty": ArraySpec((0, 2), "float32"),
        "running": ArraySpec((2,), "float32", Role.BUFFER),
        "steps": ArraySpec((), "int64", Role.COUNTER),
        "seen": ArraySpec((2,), "int32", Role.COUNTER),
        "fixed": ArraySpec((4,), "float32", Role.FROZEN),
    },
    rounds=1,
    plan=RoundPlan(goal=1),
    extra={"control": {"weight": ArraySpec((2, 3), "float32")}},
)
"""A task with arrays of every role that travels, of every float dtype, empty and without dimensions."""


def aggregator_laws(
    aggregator: Aggregator[Any], spec: TaskSpec | None = None, laws: AbstractSet[AggregatorLaw] = EVERY_LAW
) -> None:
    """Check an aggregator on updates of `spec` (by default one with every role and an extra tree).

    - order: any order and any grouping of the same updates, empty states among them, finish with the same bits.
    - result: `finish` gives the task's trees with the task's names and shapes, in float64 (counters int64).
    - mean: trainable arrays are the weighted mean, up to the rounding of the task's fixed point.
    - roles: buffers are the weighted mean, counters the maximum.
    - layout: a missing or unknown array or tree, another shape or another dtype is refused.
    - finite: NaN and infinity are refused.
    - bounds: values beyond `max_abs`, and counters that go back, are refused.
    - weight: weights below 1 unit and beyond `max_weight` are refused.
    - count: more than `max_updates` updates are refused, added or merged.

    Refused means: RefusedUpdate is raised, and the state finishes with the same bits as if nothing had been added.
    Leave out of `laws` what an aggregator does not promise: a median has no "mean".
    """
    task = spec or SPEC
    if laws & {"order", "result", "mean", "roles"}:
        _try(given(st.data())(lambda data: _folds(aggregator, task, laws, data)), 1.0)
    if laws & {"layout", "finite", "bounds", "weight"}:
        check = given(updates(task), updates(task))(lambda good, bad: _refusals(aggregator, task, laws, good, bad))
        _try(check, 0.1)  # each example is spoilt in every way there is
    if "count" in laws:
        _try(given(_cohorts(task, 3, 3))(lambda cohort: _count(aggregator, task, cohort)), 0.1)


def _try(check: Callable[[], None], share: float) -> None:
    examples = max(1, round(share * settings().max_examples))
    phases = (Phase.generate, Phase.shrink)
    settings(deadline=None, database=None, max_examples=examples, phases=phases, report_multiple_bugs=False)(check)()


def updates(spec: TaskSpec) -> st.SearchStrategy[Update]:
    """Return a Hypothesis strategy for updates that a task accepts.

    Arrays are drawn by seed, not element by element, so that models of any size are made quickly.
    """
    return st.builds(
        lambda assignment, seed, size, weight: _update(spec, assignment, seed, size, weight),
        st.text("0123456789abcdef", min_size=24, max_size=24),
        st.integers(0, 2**32 - 1),
        st.sampled_from([0.0, 1.0, 2.0**-10, 2.0**-40]),
        st.integers(1, weight_units(spec.bounds.max_weight)),
    )


def _update(spec: TaskSpec, assignment: str, seed: int, size: float, weight: int) -> Update:
    random = np.random.default_rng(seed)
    trees = {
        tree: {name: _array(array, spec.bounds, size, random) for name, array in arrays.items()}
        for tree, arrays in spec.trees.items()
    }
    return Update(assignment, trees.pop("delta"), weight, extra=trees)


def _array(array: ArraySpec, bounds: Bounds, size: float, random: np.random.Generator) -> Array:
    """Draw values up to `size` times the bound; some of them are at the bound, some zero, some minus zero."""
    dtype = np.dtype(array.dtype)
    if array.role is Role.COUNTER:
        most = int(size * float(np.iinfo(dtype).max) / 2)
        return np.asarray(random.integers(0, most, array.shape, dtype, endpoint=True))
    drawn = random.uniform(-1, 1, array.shape)
    snapped = np.where(random.random(array.shape) < 0.3, np.trunc(2 * drawn), drawn)
    return np.asarray(size * float(_limit(dtype, bounds)) * snapped, dtype)


def _cohorts(spec: TaskSpec, least: int = 1, most: int = 5) -> st.SearchStrategy[list[Update]]:
    return st.lists(updates(spec), min_size=least, max_size=most, unique_by=lambda update: update.assignment)


def _limit(dtype: np.dtype[Any], bounds: Bounds) -> Any:
    """Return the largest number of a dtype within `max_abs`."""
    limit = dtype.type(min(bounds.max_abs, float(np.finfo(dtype).max)))
    return limit if float(limit) <= bounds.max_abs else np.nextafter(limit, dtype.type(0))


def _hold(holds: bool | np.bool_, text: str) -> None:
    if not holds:  # not an assert statement: `python -O` must not switch the laws off
        raise AssertionError(text)


def _copy(update: Update) -> Update:
    """Copy an update, whose memory an aggregator may use."""
    trees = {tree: {name: array.copy() for name, array in arrays.items()} for tree, arrays in update.trees.items()}
    return replace(update, delta=trees.pop("delta"), extra=trees)


def _in_turn(aggregator: Aggregator[Any], spec: TaskSpec, cohort: Sequence[Update]) -> Any:
    state = aggregator.init(spec)
    for update in cohort:
        state = aggregator.add(state, _copy(update))
    return state


def _grouped(aggregator: Aggregator[Any], spec: TaskSpec, cohort: Sequence[Update], data: st.DataObject) -> Any:
    """Fold a cohort along a tree that Hypothesis chooses; some of its branches hold nothing."""
    if not cohort or not data.draw(st.booleans(), label="split"):
        return _in_turn(aggregator, spec, cohort)
    cut = data.draw(st.integers(0, len(cohort) - 1), label="cut")
    left = _in_turn(aggregator, spec, cohort[:cut])
    return aggregator.merge(left, _grouped(aggregator, spec, cohort[cut:], data))


def _finish(aggregator: Aggregator[Any], state: Any) -> Mapping[str, Tree]:
    try:
        return aggregator.finish(state)
    except Abandoned as error:
        raise AssertionError(f"{aggregator.name}: every update was lost ({error})") from error


def _bits(result: Mapping[str, Tree]) -> dict[str, str]:
    return {tree: digest(arrays) for tree, arrays in result.items()}


def _folds(aggregator: Aggregator[Any], spec: TaskSpec, laws: AbstractSet[AggregatorLaw], data: st.DataObject) -> None:
    cohort = data.draw(_cohorts(spec), label="updates")
    result = _finish(aggregator, _in_turn(aggregator, spec, cohort))
    if "order" in laws:
        order = data.draw(st.permutations(cohort), label="order")
        again = _finish(aggregator, _grouped(aggregator, spec, order, data))
        _hold(_bits(result) == _bits(again), f"{aggregator.name}: order or grouping changes the result")
        turned = aggregator.merge(_grouped(aggregator, spec, order, data), aggregator.init(spec))
        _hold(_bits(result) == _bits(_finish(aggregator, turned)), f"{aggregator.name}: an empty state is not neutral")
    if "result" in laws:
        _result(aggregator, spec, result)
    for tree, arrays in spec.trees.items():
        for name, array in arrays.items():
            if ("mean" if array.role is Role.TRAINABLE else "roles") in laws:
                rows = np.stack([update.trees[tree][name] for update in cohort])
                _combined(f"{aggregator.name}: {tree} {name!r}", spec, array, cohort, rows, result[tree][name])


def _result(aggregator: Aggregator[Any], spec: TaskSpec, result: Mapping[str, Tree]) -> None:
    names = {tree: set(arrays) for tree, arrays in result.items()}
    asked = {tree: set(arrays) for tree, arrays in spec.trees.items()}
    _hold(names == asked, f"{aggregator.name}: finish returns {names}, the task asks for {asked}")
    for tree, arrays in spec.trees.items():
        for name, array in arrays.items():
            given, dtype = result[tree][name], "int64" if array.role is Role.COUNTER else "float64"
            what = f"{aggregator.name}: {tree} {name!r} is {type(given).__name__} {given.dtype} {given.shape}"
            sound = isinstance(given, np.ndarray) and given.shape == array.shape and given.dtype == dtype
            _hold(sound, f"{what}, not an array {dtype} {array.shape}")


def _combined(what: str, spec: TaskSpec, array: ArraySpec, cohort: Sequence[Update], rows: Array, given: Array) -> None:
    if array.role is Role.COUNTER:
        _hold(np.array_equal(rows.max(axis=0), given), f"{what} is not the maximum")
        return
    weights = np.array([update.weight for update in cohort], np.float64)
    mean = np.tensordot(weights, rows.astype(np.float64), 1) / weights.sum()
    # Each product is rounded to the fixed point once, and all else to float64.
    unit = len(cohort) * 2.0**-spec.bounds.fraction_bits / weights.sum()
    tolerance = unit + 8 * len(cohort) * np.finfo(np.float64).eps * spec.bounds.max_abs
    _hold(np.abs(mean - given).max(initial=0.0) <= tolerance, f"{what} is not the weighted mean: {given}, not {mean}")


def _refusals(
    aggregator: Aggregator[Any], spec: TaskSpec, laws: AbstractSet[AggregatorLaw], good: Update, base: Update
) -> None:
    expected = _bits(_finish(aggregator, _in_turn(aggregator, spec, [good])))
    for law, what, bad in _defects(spec, replace(base, assignment=f"{base.assignment}-bad")):
        if law in laws:
            state = _in_turn(aggregator, spec, [good])
            try:
                aggregator.add(state, _copy(bad))
            except RefusedUpdate:
                kept = _bits(_finish(aggregator, state))
                _hold(kept == expected, f"{aggregator.name}: an update with {what} was refused, and counted in part")
            else:
                raise AssertionError(f"{aggregator.name}: an update with {what} was not refused")


def _defects(spec: TaskSpec, update: Update) -> Iterator[tuple[AggregatorLaw, str, Update]]:
    for weight in (-1, 0, weight_units(spec.bounds.max_weight) + 1):
        yield "weight", f"weight {weight}", replace(update, weight=weight)
    yield "layout", "an unknown tree", replace(update, extra={**update.extra, "unknown tree": {}})
    for tree in spec.extra:
        yield "layout", f"no tree {tree!r}", replace(update, extra=_without(update.extra, tree))
    for tree, arrays in spec.trees.items():
        yield "layout", f"an unknown array in {tree}", _with(update, tree, "unknown array", np.zeros(1, np.float32))
        for name, array in arrays.items():
            here = update.trees[tree]
            yield "layout", f"no {name!r}", _with_tree(update, tree, _without(here, name))
            yield "layout", f"{name!r} of another shape", _with(update, tree, name, here[name][None])
            other = np.float32 if here[name].dtype != np.float32 else np.float64
            yield "layout", f"{name!r} in {np.dtype(other)}", _with(update, tree, name, here[name].astype(other))
            for law, value in _beyond(array, spec.bounds) if array.size else ():
                spoilt = here[name].copy()
                spoilt.reshape(-1)[-1] = value
                yield law, f"{name!r} holding {value}", _with(update, tree, name, spoilt)


def _beyond(array: ArraySpec, bounds: Bounds) -> Iterator[tuple[AggregatorLaw, Any]]:
    dtype = np.dtype(array.dtype)
    if array.role is Role.COUNTER:
        yield "bounds", -1
        return
    for value in (np.nan, np.inf, -np.inf):
        yield "finite", dtype.type(value)
    above = np.nextafter(_limit(dtype, bounds), dtype.type(np.inf))
    if np.isfinite(above):
        yield "bounds", above
        yield "bounds", -above


def _without(mapping: Mapping[str, Any], name: str) -> dict[str, Any]:
    return {key: value for key, value in mapping.items() if key != name}


def _with(update: Update, tree: str, name: str, array: Array) -> Update:
    return _with_tree(update, tree, {**update.trees[tree], name: array})


def _with_tree(update: Update, tree: str, arrays: Tree) -> Update:
    if tree == "delta":
        return replace(update, delta=arrays)
    return replace(update, extra={**update.extra, tree: arrays})


def _count(aggregator: Aggregator[Any], spec: TaskSpec, cohort: Sequence[Update]) -> None:
    narrow = replace(spec, bounds=replace(spec.bounds, max_updates=2), plan=RoundPlan(goal=1))
    full = _in_turn(aggregator, narrow, cohort[:2])
    other = _in_turn(aggregator, narrow, cohort[2:])
    grown: dict[str, Callable[[], Any]] = {
        "adding": lambda: aggregator.add(full, _copy(cohort[2])),
        "merging": lambda: aggregator.merge(full, other),
    }
    for what, grow in grown.items():
        try:
            grow()
        except RefusedUpdate:
            continue
        raise AssertionError(f"{aggregator.name}: {what} may exceed max_updates")

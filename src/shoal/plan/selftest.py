"""The golden step of a plan: a runtime proves itself on a batch with known results before it trains.

What a graph should give is known as the loss, and for every array the length of its change with its products with four
pseudorandom arrays: a few numbers instead of the arrays themselves, which a wrong result misses all the same.
"""

from collections.abc import Iterator, Mapping

import numpy as np

from shoal.core.errors import NotFinite, RuntimeMismatch
from shoal.core.tree import Array, Tree
from shoal.plan.manifest import Drawn, Golden, Manifest
from shoal.plan.noise import uniform
from shoal.plan.run import RUNTIMES, Plan, Training

PRODUCTS = 4
DRAWN = 1 << 20
"""Added to the index of an array that is drawn, so that it is not that of a noise input."""


def proved(plan: Plan) -> Plan:
    """Return the plan on the first runtime that passes its golden step. Raises RuntimeMismatch when none does."""
    problems = []
    for runtime in RUNTIMES:
        tried = plan.on(runtime)
        found = list(mismatches(tried))
        if not found:
            return tried
        problems.append(f"{runtime}: {'; '.join(found[:3])}")
    raise RuntimeMismatch(
        f"the golden step of task {plan.manifest.task!r} gives another result here ({' | '.join(problems)})",
        "update onnxruntime, or take part with the task's code and torch; nothing was trained",
    )


def mismatches(plan: Plan) -> Iterator[str]:
    """Yield a sentence for every result of the golden step that is not as expected."""
    try:
        yield from _compared(plan)
    except (RuntimeMismatch, NotFinite) as error:
        yield error.problem


def _compared(plan: Plan) -> Iterator[str]:
    golden, manifest = plan.golden, plan.manifest
    params = start(manifest, golden)
    batch = {name.removeprefix("batch/"): golden[name] for name in golden if name.startswith("batch/")}
    training = Training(plan, params, seed=manifest.golden.seed)
    yield from _differs("the loss", golden["loss"], np.asarray([training.step(batch)]), manifest.golden)
    after = training.arrays
    for name in sorted(golden):
        kind, _, key = name.partition("/")
        if kind == "change":
            moved = change(params[key], after[key], golden.get(f"rounding/{key}"))
            yield from _differs(f"the change of {key!r}", golden[name], measures(moved), manifest.golden, moved.size)
    yield from _others(plan, params, batch)


def _others(plan: Plan, params: Tree, batch: Mapping[str, Array]) -> Iterator[str]:
    golden, rules = plan.golden, plan.manifest.golden
    arrays = {f"array/{name}": array for name, array in params.items()}
    given = {**arrays, **{f"batch/{name}": array for name, array in batch.items()}}
    for graph in sorted(plan.graphs.keys() - {"train"}):
        for name, value in plan.run(graph, given).items():
            key = f"{graph}/{name}"
            if key in golden:
                yield from _differs(f"{graph}'s {name}", golden[key], measures(value), rules, value.size)


def start(manifest: Manifest, golden: Tree) -> dict[str, Array]:
    """Return the arrays that the golden step begins with: those that are listed, and those that are drawn."""
    rules = manifest.golden
    found = {}
    for entry in manifest.arrays:
        if entry.name in rules.drawn:
            found[entry.name] = drawn(rules.drawn[entry.name], rules.seed, entry.shape).astype(entry.dtype)
        else:
            found[entry.name] = golden[f"start/{entry.name}"]
    return found


def drawn(rule: Drawn, seed: int, shape: tuple[int, ...]) -> Array:
    """Return an array of the golden step by its rule, in float64."""
    spread = uniform(seed, 0, DRAWN + rule.index, shape).astype(np.float64) * 2 - 1
    return np.clip(rule.middle + rule.spread * spread, rule.low, rule.high)


def change(before: Array, after: Array, rounding: Array | None) -> Array:
    """Return a change in float64, without the elements (places in the flat array) that move by rounding alone."""
    moved = (after.astype(np.float64) - before.astype(np.float64)).reshape(-1)
    if rounding is not None:
        moved[rounding] = 0.0
    return moved


def measures(array: Array) -> Array:
    """Return an array's Euclidean length, and its products with pseudorandom arrays of numbers in [-1, 1)."""
    flat = array.astype(np.float64).reshape(-1)
    signs = (uniform(0, 0, index, flat.shape).astype(np.float64) * 2 - 1 for index in range(PRODUCTS))
    return np.asarray([np.sqrt(flat @ flat), *(flat @ sign for sign in signs)])


def _differs(what: str, expected: Array, found: Array, rules: Golden, size: int = 1) -> Iterator[str]:
    tolerance = rules.relative * abs(float(expected[0])) + rules.absolute * size**0.5
    distance = float(np.abs(expected - found).max())
    if not distance <= tolerance:
        yield f"{what} is off by {distance:.3g}, {tolerance:.3g} is allowed"

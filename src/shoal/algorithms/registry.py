"""Finding an installed part by the name a TaskSpec gives: ours, or an entry point of an installed package.

Packages offer aggregators in the entry point group `shoal.aggregators`, server optimizers in
`shoal.server_optimizers`, and what clients do beside training in `shoal.local_rules`. Nothing is ever loaded by a name
that is not installed.
"""

import dataclasses
import difflib
from collections.abc import Callable, Mapping
from importlib.metadata import entry_points
from typing import Any

from shoal.algorithms.aggregator import Aggregator
from shoal.algorithms.ditto import Personalised
from shoal.algorithms.feddyn import Dynamic, DynamicServer
from shoal.algorithms.fednova import Normalised, NormalisedMean
from shoal.algorithms.fedrep import HeadFirst
from shoal.algorithms.mean import ExactMean
from shoal.algorithms.optimizer import SGD, Adagrad, Adam, Momentum, ServerOptimizer, Yogi
from shoal.algorithms.qfedavg import Fair, FairMean
from shoal.algorithms.robust import Median
from shoal.algorithms.rule import LocalRule, zeros
from shoal.algorithms.scaffold import Controlled
from shoal.algorithms.statistics import Moments
from shoal.core.errors import ConfigurationError, SimulationOnly, TaskError, UnknownSetting
from shoal.core.task import Component, LocalPlan, TaskSpec

AGGREGATORS: Mapping[str, Callable[..., Aggregator[Any]]] = {
    part.name: part for part in (ExactMean, Median, Moments, NormalisedMean, FairMean)
}
SERVER_OPTIMIZERS: Mapping[str, Callable[..., ServerOptimizer]] = {
    part.name: part for part in (SGD, Momentum, Adagrad, Adam, Yogi, DynamicServer)
}
LOCAL_RULES: Mapping[str, Callable[..., LocalRule]] = {
    part.name: part for part in (Controlled, Normalised, Dynamic, Personalised, Fair, HeadFirst)
}


def component(part: Any) -> Component:
    """Return the plain data that stands for a part: its name and its dataclass fields."""
    return Component(part.name, dataclasses.asdict(part))


def aggregator(spec: Component) -> Aggregator[Any]:
    """Build the aggregator that a component names."""
    built: Aggregator[Any] = _build(spec, AGGREGATORS, "shoal.aggregators")
    return built


def server_optimizer(spec: Component) -> ServerOptimizer:
    """Build the server optimizer that a component names."""
    built: ServerOptimizer = _build(spec, SERVER_OPTIMIZERS, "shoal.server_optimizers")
    return built


def local_rule(plan: LocalPlan) -> LocalRule | None:
    """Build the rule that a local plan names, if it names one."""
    if plan.rule is None:
        return None
    built: LocalRule = _build(plan.rule, LOCAL_RULES, "shoal.local_rules")
    return built


def check_servable(spec: TaskSpec) -> None:
    """Raise SimulationOnly for a task whose rule devices cannot carry out, ConfigurationError for an unknown rule.

    Raises TaskError for a task whose updates carry other trees than its rule's.
    """
    rule = local_rule(spec.local)
    if rule is None:
        return
    if not rule.on_devices:
        raise SimulationOnly(
            f"task {spec.name!r} has the local rule {rule.name!r}, which devices that come and go cannot carry out",
            "simulate it: shoal.simulate(...), or publish with another strategy, such as shoal.fedavg()",
        )
    wanted = rule.extra_trees(spec.arrays)
    if {tree: dict(arrays) for tree, arrays in spec.extra.items()} != wanted:
        raise TaskError(
            f"task {spec.name!r} has the local rule {rule.name!r} and the extra trees {sorted(spec.extra)}",
            f"the rule's updates carry {sorted(wanted)}: publish the task anew",
        )
    # what devices share travels with the server optimizer's state, which is none of their business
    if rule.shares and server_optimizer(spec.server).init(zeros(spec.arrays)):
        raise SimulationOnly(
            f"task {spec.name!r} has the local rule {rule.name!r} and the server optimizer {spec.server.name!r}, "
            "which keeps a state",
            "publish it with a server optimizer that keeps none, such as sgd, or simulate it",
        )


def shared_trees(plan: LocalPlan) -> tuple[str, ...]:
    """Return the names of the trees that belong to every version beside its arrays."""
    rule = local_rule(plan)
    return () if rule is None else rule.shares


def _build(spec: Component, ours: Mapping[str, Callable[..., Any]], group: str) -> Any:
    make = ours.get(spec.name)
    if make is None:
        installed = {point.name: point for point in entry_points(group=group)}
        if spec.name not in installed:
            known = sorted([*ours, *installed])
            raise ConfigurationError(
                f"no part {spec.name!r} in {group}",
                f"install the package that offers it, or use one of {', '.join(known)}{nearest(spec.name, known)}",
            )
        make = installed[spec.name].load()
    fields = {field.name for field in dataclasses.fields(make)}  # type: ignore[arg-type]
    for option in spec.options:
        if option not in fields:
            raise UnknownSetting(
                f"{spec.name} has no option {option!r}",
                f"use one of {sorted(fields)}{nearest(option, fields)}",
            )
    return make(**spec.options)


def nearest(word: str, known: object) -> str:
    """Return " (did you mean ...?)" when a known word is close to `word`, else nothing."""
    close = difflib.get_close_matches(word, list(known), 1)  # type: ignore[call-overload]
    return f" (did you mean {close[0]!r}?)" if close else ""

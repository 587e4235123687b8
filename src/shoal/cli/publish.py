"""`shoal publish`."""

from dataclasses import replace
from typing import TYPE_CHECKING, Annotated

import typer

from shoal.cli.ending import reported
from shoal.cli.options import Ca, Json, Token, Url
from shoal.cli.output import print_json
from shoal.cli.round_options import (
    Confidence,
    Cron,
    Deadline,
    Every,
    Higher,
    Jitter,
    Late,
    LateUpdates,
    MinImprovement,
    Minimum,
    Patience,
    Period,
    Separation,
    StopMetric,
    Window,
    ZoneOfTimes,
    early_stop,
    schedule_of,
)
from shoal.cli.serving_options import (
    Fraction,
    Guard,
    GuardDeadline,
    GuardDevices,
    GuardHigher,
    GuardRows,
    Promotion,
    Serve,
    Tolerance,
    canary_of,
    serving_of,
)
from shoal.cli.watch import Features, show
from shoal.demo.imports import need_torch, uncollected

if TYPE_CHECKING:
    from shoal.researcher.checking import Ranges
    from shoal.researcher.coordinator import Coordinator
    from shoal.train.task import Task

Initial = Annotated[
    str | None,
    typer.Option(metavar="FILE|TASK@VERSION", help="Weights to start from: a safetensors file, or an earlier version."),
]
Check = Annotated[
    bool | None,
    typer.Option(
        "--check/--no-check",
        show_default="when enough owners have joined",
        help="First let the owners compare their rows with the task's.",
    ),
]
Plan = Annotated[
    bool,
    typer.Option("--plan/--no-plan", help="Export the training step, so that devices without your code can train."),
]
Within = Annotated[float, typer.Option("--check-seconds", min=1, help="For how long --check waits for the owners.")]


@reported
def publish(
    code: Annotated[str, typer.Argument(metavar="FILE.py:TASK", help="File and name of a shoal.Task or function.")],
    url: Url,
    token: Token,
    rounds: Annotated[int, typer.Option(min=1, help="Rounds to train.")],
    owners: Annotated[int, typer.Option(min=1, help="Reports that complete a round.")],
    features: Features = 1,
    seed: Annotated[int, typer.Option(help="Seed of everything random in the task.")] = 0,
    minimum: Minimum = None,
    deadline: Deadline = 600.0,
    confidence: Confidence = 0.0,
    late: LateUpdates = Late.DROP,
    stop_metric: StopMetric = None,
    patience: Patience = 5,
    min_improvement: MinImprovement = 0.0,
    higher: Higher = False,
    every: Every = 0.0,
    cron: Cron = "",
    window: Window = "",
    time_zone: ZoneOfTimes = "utc",
    jitter: Jitter = 0.0,
    period: Period = 0.0,
    separation: Separation = 0.0,
    serve: Serve = Promotion.ALWAYS,
    canary: Fraction = 0.1,
    guard: Guard = "loss",
    tolerance: Tolerance = 0.0,
    guard_higher: GuardHigher = False,
    guard_devices: GuardDevices = 2,
    guard_rows: GuardRows = 20,
    guard_deadline: GuardDeadline = 86400.0,
    initial: Initial = None,
    check: Check = None,
    check_seconds: Within = 60.0,
    plan: Plan = True,
    watch: Annotated[bool, typer.Option("--watch", help="Then follow it, measuring your test rows.")] = False,
    ca: Ca = None,
    as_json: Json = False,
) -> None:
    """Publish a task for owners to train.

    Your file is run here; what travels is names, shapes, numbers and digests. Before that, owners that have joined
    compare their rows with the task's shapes, labels and ranges, and nothing is published when they do not fit.
    """
    need_torch()
    with uncollected():
        from shoal.agent.code import load_task
        from shoal.researcher.coordinator import Coordinator

    schedule = schedule_of(every, cron, window, time_zone, jitter, period, separation)
    trial = canary_of(canary, guard, tolerance, guard_higher, guard_devices, guard_rows, guard_deadline)
    task = load_task(code, features)
    if initial is not None:
        task = replace(task, initial=initial)
    with Coordinator.connect(url, token=token, ca=ca) as coordinator:
        ranges = _checked(coordinator, task, owners, check, check_seconds)
        if not as_json:
            typer.echo(_said(ranges))
        run = coordinator.publish(
            task,
            rounds=rounds,
            goal=owners,
            minimum=minimum,
            deadline=deadline,
            confidence=confidence,
            late=late.value,
            stop=early_stop(stop_metric, patience, min_improvement, higher),
            schedule=schedule,
            serving=serving_of(serve, trial),
            seed=seed,
            plan=plan,
        )
        if as_json:
            told = {"task": run.id, "name": task.name, "rounds": rounds, "owners": owners, "checked": ranges}
            print_json({**told, "plan": run.spec.exported})
        else:
            how = "with its plan" if plan else "without a plan: owners need its code"
            typer.echo(f"published {run.id} {how}" + ("" if watch else f"\nNext:\n  shoal watch {run.id}"))
        if watch:
            show(run, task, as_json=as_json)


def _checked(
    coordinator: "Coordinator", task: "Task", owners: int, check: bool | None, seconds: float
) -> "Ranges | None":
    from shoal.core.errors import Abandoned

    if check is None and sum(device.revoked is None for device in coordinator.devices()) < owners:
        return None
    if check is False:
        return None
    try:
        return coordinator.check(task, goal=owners, within=seconds)
    except Abandoned:
        if check:
            raise
        return None


def _said(ranges: "Ranges | None") -> str:
    if ranges is None:
        return "no check over all owners: each compares its own rows with the task before it trains"
    columns = ", ".join(f"{name} {low:g} to {high:g}" for name, (low, high) in ranges.columns.items())
    return f"checked {ranges.rows} rows of {ranges.owners} owners: {columns}"

"""`shoal models heads`, `promote`, `rollback`, `rewind` and `note`."""

from typing import TYPE_CHECKING, Annotated

import typer

from shoal.cli.ending import reported
from shoal.cli.models import flat
from shoal.cli.options import Ca, Json, Token, Url
from shoal.cli.output import moment, print_json, print_table
from shoal.cli.serving_options import Guard, GuardDeadline, GuardDevices, GuardHigher, GuardRows, Tolerance, canary_of

if TYPE_CHECKING:
    from shoal.wire.messages import HeadsReply

Named = Annotated[str, typer.Argument(metavar="TASK", help="Id or name of a task.")]
Version = Annotated[str, typer.Argument(metavar="TASK@VERSION", help="A task's id or name, and a version's number.")]
Reason = Annotated[str, typer.Option(help="Why; it is kept with the step.")]


@reported
def heads(task: Named, url: Url, token: Token, ca: Ca = None, as_json: Json = False) -> None:
    """Show which version is served, on trial and trained from, and what happened to versions."""
    from shoal.researcher.coordinator import Coordinator

    with Coordinator.connect(url, token=token, ca=ca) as coordinator:
        found = coordinator.heads(task)
    if as_json:
        print_json(found)
        return
    _show(found)
    rows = [(moment(step.at), step.number, step.what, step.by, step.reason) for step in found.steps]
    print_table(("when", "version", "what", "by", "why"), rows)
    if found.refusals:
        print_table(
            ("device", "version", "not served there because"), [(r.device, r.number, r.reason) for r in found.refusals]
        )


@reported
def promote(
    version: Annotated[str, typer.Argument(metavar="TASK[@VERSION]", help="By default its newest version.")],
    url: Url,
    token: Token,
    canary: Annotated[
        float | None, typer.Option(min=1e-6, max=1.0, help="Let this share of the devices try it first.")
    ] = None,
    guard: Guard = "loss",
    tolerance: Tolerance = 0.0,
    guard_higher: GuardHigher = False,
    guard_devices: GuardDevices = 2,
    guard_rows: GuardRows = 20,
    guard_deadline: GuardDeadline = 86400.0,
    reason: Reason = "",
    ca: Ca = None,
    as_json: Json = False,
) -> None:
    """Let devices serve a version. An older one stays served until you promote the newest."""
    from shoal.researcher.coordinator import Coordinator

    task, number = _split(version) if "@" in version else (version, None)
    guards = (guard, tolerance, guard_higher, guard_devices, guard_rows, guard_deadline)
    trial = None if canary is None else canary_of(canary, *guards)
    with Coordinator.connect(url, token=token, ca=ca) as coordinator:
        found = coordinator.promote(task, number, canary=trial, reason=reason)
    _print(found, as_json=as_json)


@reported
def rollback(
    task: Named,
    url: Url,
    token: Token,
    to: Annotated[int | None, typer.Option(min=0, help="Serve this version; by default the one before.")] = None,
    reason: Reason = "",
    ca: Ca = None,
    as_json: Json = False,
) -> None:
    """End a canary or, without one, serve the version before; what is rolled back comes back by a person only."""
    from shoal.researcher.coordinator import Coordinator

    with Coordinator.connect(url, token=token, ca=ca) as coordinator:
        found = coordinator.rollback(task, to, reason=reason)
    _print(found, as_json=as_json)


@reported
def rewind(version: Version, url: Url, token: Token, reason: Reason = "", ca: Ca = None, as_json: Json = False) -> None:
    """Let rounds go on from an older version. What devices serve stays as it is; work under way is dropped."""
    from shoal.researcher.coordinator import Coordinator

    task, number = _split(version)
    with Coordinator.connect(url, token=token, ca=ca) as coordinator:
        found = coordinator.rewind(task, number, reason=reason)
    _print(found, as_json=as_json)


@reported
def note(
    version: Version,
    text: Annotated[str, typer.Argument(help="What to write down.")],
    url: Url,
    token: Token,
    ca: Ca = None,
    as_json: Json = False,
) -> None:
    """Write something down about a version."""
    from shoal.researcher.coordinator import Coordinator

    task, number = _split(version)
    with Coordinator.connect(url, token=token, ca=ca) as coordinator:
        record = coordinator.note(task, number, text)
    if as_json:
        print_json(flat(record))
    else:
        typer.echo(f"version {number} of {task} has {len(record.notes)} notes")


def _split(version: str) -> tuple[str, int]:
    task, _, number = version.rpartition("@")
    if not task or not number.isdecimal():
        raise typer.BadParameter(f"{version!r} names no version, such as boston-1@12", param_hint="TASK@VERSION")
    return task, int(number)


def _print(found: "HeadsReply", *, as_json: bool) -> None:
    if as_json:
        print_json(found)
    else:
        _show(found)


def _show(found: "HeadsReply") -> None:
    held = ", held until a person promotes the newest" if found.held else ""
    trial = "" if found.candidate is None else f", version {found.candidate} on trial"
    typer.echo(f"{found.task} serves version {found.serving}{held}{trial}; rounds train from {found.training}")

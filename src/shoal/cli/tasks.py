"""`shoal tasks`, `shoal tasks show` and `shoal tasks cancel`."""

from typing import TYPE_CHECKING, Annotated

import typer

from shoal.cli.ending import reported
from shoal.cli.options import CONNECT, Ca, Json, MaybeToken, MaybeUrl, Token, Url, both, example
from shoal.cli.output import moment, print_json, print_table

if TYPE_CHECKING:
    from shoal.core.manifest import Manifest
    from shoal.core.origin import Origin
    from shoal.wire.messages import TaskStatus

Named = Annotated[str, typer.Argument(metavar="TASK", help="Id or name of a task.")]

tasks = typer.Typer(invoke_without_command=True, rich_markup_mode=None)


@tasks.callback(epilog=example(CONNECT, "shoal tasks", "shoal tasks show regression-1"))
@reported
def list_(
    invoked: typer.Context, url: MaybeUrl = None, token: MaybeToken = None, ca: Ca = None, as_json: Json = False
) -> None:
    """List the tasks of a coordinator, show one, or cancel one."""
    if invoked.invoked_subcommand is not None:
        return
    from shoal.researcher.coordinator import Coordinator

    url, token = both(url, token)
    with Coordinator.connect(url, token=token, ca=ca) as coordinator:
        found = coordinator.tasks()
    if as_json:
        for status in found:
            print_json(status)
        return
    rows = [
        (status.id, status.kind, status.phase, f"{status.latest.number}/{status.rounds}", status.reason)
        for status in found
    ]
    print_table(("task", "kind", "phase", "rounds", "reason"), rows)


@tasks.command(epilog=example(CONNECT, "shoal tasks show regression-1"))
@reported
def show(task: Named, url: Url, token: Token, ca: Ca = None, as_json: Json = False) -> None:
    """Show where a task stands, and its manifest.

    The manifest is what the task's versions follow from: the same manifest gives the same digests.
    """
    from shoal.researcher.coordinator import Coordinator

    with Coordinator.connect(url, token=token, ca=ca) as coordinator:
        status, manifest = coordinator.status(task), coordinator.manifest(task)
    if as_json:
        print_json({"status": status, "manifest": manifest, "manifest_digest": manifest.digest})
        return
    print_table(("what", "value"), [*_standing(status), *_origins(manifest)])
    typer.echo("configuration:")
    print_json(manifest.configuration)


def _standing(status: "TaskStatus") -> list[tuple[str, str]]:
    latest = status.latest
    refusals = [(f"refused by {name}", reason) for name, reason in sorted(status.refusals.items())]
    return [
        ("task", status.id),
        ("phase", f"{status.phase}{': ' if status.reason else ''}{status.reason}"),
        ("version", f"{latest.number} of {status.rounds}, {moment(latest.created)}"),
        ("digest", latest.digest),
        ("reports", f"{status.reports} of {status.goal}"),
        *refusals,
    ]


def _origins(manifest: "Manifest") -> list[tuple[str, str]]:
    owners = [(f"owner {name}", _origin(origin)) for name, origin in manifest.owners.items()]
    return [
        ("manifest", manifest.digest),
        ("spec", manifest.spec),
        ("seed", str(manifest.seed)),
        ("researcher", _origin(manifest.researcher)),
        *owners,
    ]


def _origin(origin: "Origin") -> str:
    from dataclasses import asdict

    versions = asdict(origin.environment)
    machine = versions.pop("platform")
    parts = [f"{name} {value}" for name, value in versions.items() if value]
    parts += [
        machine,
        f"trainer {origin.trainer}" if origin.trainer else "",
        f"code {origin.code}" if origin.code else "",
    ]
    return ", ".join(part for part in (*parts, f"data {origin.data}" if origin.data else "") if part)


@tasks.command(epilog=example(CONNECT, "shoal tasks cancel regression-1 --reason 'wrong learning rate'"))
@reported
def cancel(
    task: Named,
    url: Url,
    token: Token,
    reason: Annotated[str, typer.Option(help="Why; owners and researchers read it.")] = "cancelled by its researcher",
    ca: Ca = None,
    as_json: Json = False,
) -> None:
    """End a task now. The versions that it made stay."""
    from shoal.researcher.coordinator import Coordinator

    with Coordinator.connect(url, token=token, ca=ca) as coordinator:
        status = coordinator.cancel(task, reason)
    if as_json:
        print_json(status)
    else:
        typer.echo(f"{status.id} {status.phase}: {status.reason}")

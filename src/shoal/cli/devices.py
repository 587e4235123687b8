"""`shoal devices`."""

from typing import TYPE_CHECKING, Annotated

import typer

from shoal.cli.ending import reported
from shoal.cli.options import CONNECT, Ca, Json, MaybeToken, MaybeUrl, Token, Url, both, example
from shoal.cli.output import moment, print_json, print_table

if TYPE_CHECKING:
    from shoal.wire.messages import DeviceStatus

Name = Annotated[str, typer.Argument(metavar="NAME", help="A device's name.")]
Scope = Annotated[
    list[str] | None,
    typer.Option("--scope", metavar="TASK", help="Confine it to tasks of this name; may be given again."),
]
Key = Annotated[str, typer.Option("--key", metavar="ID", help="Only the device with this id, which is its key's.")]

devices = typer.Typer(invoke_without_command=True, rich_markup_mode=None)


@devices.callback(epilog=example(CONNECT, "shoal devices", "shoal devices approve bob"))
@reported
def list_(
    invoked: typer.Context, url: MaybeUrl = None, token: MaybeToken = None, ca: Ca = None, as_json: Json = False
) -> None:
    """List the devices that joined a coordinator or wait to; approve, refuse or revoke one."""
    if invoked.invoked_subcommand is not None:
        return
    from shoal.researcher.coordinator import Coordinator

    url, token = both(url, token)
    with Coordinator.connect(url, token=token, ca=ca) as coordinator:
        found = coordinator.devices()
    if as_json:
        for device in found:
            print_json(device)
        return
    print_table(("name", "device", "state", "enrolled", "last seen", "tasks"), [_row(device) for device in found])


@devices.command(epilog=example(CONNECT, "shoal devices approve bob --scope digits"))
@reported
def approve(
    name: Name,
    url: Url,
    token: Token,
    scope: Scope = None,
    key: Key = "",
    ca: Ca = None,
    as_json: Json = False,
) -> None:
    """Let a device in that waits for approval."""
    from shoal.researcher.coordinator import Coordinator

    with Coordinator.connect(url, token=token, ca=ca) as coordinator:
        _say(coordinator.access.approve(name, scope=scope or (), key=key), as_json)


@devices.command(epilog=example(CONNECT, "shoal devices refuse bob"))
@reported
def refuse(name: Name, url: Url, token: Token, ca: Ca = None, as_json: Json = False) -> None:
    """Turn a device away that waits for approval."""
    from shoal.researcher.coordinator import Coordinator

    with Coordinator.connect(url, token=token, ca=ca) as coordinator:
        coordinator.access.refuse(name)
    if as_json:
        print_json({"name": name, "state": "refused"})
    else:
        typer.echo(f"device {name!r} was refused")


@devices.command(epilog=example(CONNECT, "shoal devices revoke bob"))
@reported
def revoke(name: Name, url: Url, token: Token, ca: Ca = None, as_json: Json = False) -> None:
    """Let a device in no more, at once: what it works on is given back."""
    from shoal.researcher.coordinator import Coordinator

    with Coordinator.connect(url, token=token, ca=ca) as coordinator:
        _say(coordinator.access.revoke(name), as_json)


def _say(device: "DeviceStatus", as_json: bool) -> None:
    if as_json:
        print_json(device)
    else:
        typer.echo(f"device {device.name!r} is {device.state}")


def _row(device: "DeviceStatus") -> tuple[str, ...]:
    enrolled, seen = moment(device.enrolled), moment(device.last_seen)
    return device.name, device.id, device.state, enrolled, seen, ", ".join(device.scope) or "all"

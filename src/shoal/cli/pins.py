"""`shoal models pin` and `unpin`."""

from typing import Annotated

import typer

from shoal.cli.ending import reported
from shoal.cli.options import Json, Token, Url
from shoal.cli.output import print_json

Version = Annotated[str, typer.Argument(metavar="TASK@VERSION", help="A task's id or name, and a version's number.")]


@reported
def pin(version: Version, url: Url, token: Token, as_json: Json = False) -> None:
    """Keep a version, also where a coordinator keeps only the newest ones."""
    _set(version, url, token, as_json, True)


@reported
def unpin(version: Version, url: Url, token: Token, as_json: Json = False) -> None:
    """Let a version go with the others of its age."""
    _set(version, url, token, as_json, False)


def _set(version: str, url: str, token: str, as_json: bool, pinned: bool) -> None:
    from shoal.researcher.coordinator import Coordinator

    task, _, number = version.rpartition("@")
    if not task or not number.isdecimal():
        raise typer.BadParameter(f"{version!r} names no version, such as boston-1@12", param_hint="TASK@VERSION")
    with Coordinator.connect(url, token=token) as coordinator:
        pins = coordinator.pin(task, int(number), pinned)
    if as_json:
        print_json(pins)
    else:
        typer.echo(f"pinned of {pins.task}: {', '.join(map(str, pins.versions)) or 'none'}")

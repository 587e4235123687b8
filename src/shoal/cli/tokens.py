"""`shoal tokens`."""

from typing import TYPE_CHECKING, Annotated, Literal, cast

import typer

from shoal.cli.ending import reported
from shoal.cli.options import CONNECT, Ca, Json, MaybeToken, MaybeUrl, Token, Url, both, duration, example
from shoal.cli.output import moment, print_json, print_table

if TYPE_CHECKING:
    from shoal.wire.messages import TokenStatus

ROLES = ("admin", "researcher", "owner", "viewer", "enrolment")

Role = Annotated[str, typer.Option("--role", help=f"What it is for: {', '.join(ROLES)}.")]
Uses = Annotated[int | None, typer.Option("--uses", min=1, help="How many devices may enrol with it; default: any.")]
Expires = Annotated[
    float | None,
    typer.Option("--expires", metavar="TIME", parser=duration, help="For how long it is good, such as 12h or 7d."),
]
Scope = Annotated[
    list[str] | None,
    typer.Option("--scope", metavar="TASK", help="Confine its devices to tasks of this name; may be given again."),
]
Id = Annotated[str, typer.Argument(metavar="ID", help="A token's id, as `shoal tokens` lists it.")]

tokens = typer.Typer(invoke_without_command=True, rich_markup_mode=None)


@tokens.callback(epilog=example(CONNECT, "shoal tokens", "shoal tokens create --role enrolment --uses 20 --expires 7d"))
@reported
def list_(
    invoked: typer.Context, url: MaybeUrl = None, token: MaybeToken = None, ca: Ca = None, as_json: Json = False
) -> None:
    """List the tokens of people and for enrolment, make one, or revoke one."""
    if invoked.invoked_subcommand is not None:
        return
    from shoal.researcher.coordinator import Coordinator

    url, token = both(url, token)
    with Coordinator.connect(url, token=token, ca=ca) as coordinator:
        found = coordinator.access.tokens()
    if as_json:
        for each in found:
            print_json(each)
        return
    print_table(("token", "role", "used", "expires", "tasks", "revoked"), [_row(each) for each in found])


@tokens.command(epilog=example(CONNECT, "shoal tokens create --role enrolment --uses 20 --expires 7d --scope digits"))
@reported
def create(
    url: Url,
    token: Token,
    role: Role = "enrolment",
    uses: Uses = None,
    expires: Expires = None,
    scope: Scope = None,
    ca: Ca = None,
    as_json: Json = False,
) -> None:
    """Make a token and print it, once. An owner's token makes tokens for enrolment only."""
    from shoal.researcher.coordinator import Coordinator
    from shoal.wire.messages import TokenRequest

    if role not in ROLES:
        raise typer.BadParameter(f"{role!r} is none of {', '.join(ROLES)}", param_hint="--role")
    known = cast(Literal["admin", "researcher", "owner", "viewer", "enrolment"], role)
    with Coordinator.connect(url, token=token, ca=ca) as coordinator:
        made = coordinator.access.create(TokenRequest(known, expires, uses, tuple(scope or ())))
    if as_json:
        print_json(made)
    else:
        typer.echo(f"{made.token}\n\nShown only now. Its id is {made.id}: shoal tokens revoke {made.id}")


@tokens.command(epilog=example(CONNECT, "shoal tokens revoke 1f0c2a9be3d4"))
@reported
def revoke(id_: Id, url: Url, token: Token, ca: Ca = None, as_json: Json = False) -> None:
    """Take a token back, at once. Devices that enrolled with it stay."""
    from shoal.researcher.coordinator import Coordinator

    with Coordinator.connect(url, token=token, ca=ca) as coordinator:
        gone = coordinator.access.revoke_token(id_)
    if as_json:
        print_json(gone)
    else:
        typer.echo(f"token {gone.id} for {gone.role!r} is revoked")


def _row(token: "TokenStatus") -> tuple[str, ...]:
    uses = f"{token.used} of {token.uses}" if token.uses is not None else str(token.used)
    ends = "never" if token.expires is None else moment(token.expires)
    return token.id, token.role, uses, ends, ", ".join(token.scope) or "all", "yes" if token.revoked else ""

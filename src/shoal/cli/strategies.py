"""`shoal strategies`: what there is, from which papers, and where it is valid."""

from typing import TYPE_CHECKING, Annotated

import typer

from shoal.cli.ending import reported
from shoal.cli.options import Json
from shoal.cli.output import print_json, print_table

if TYPE_CHECKING:
    from shoal.algorithms.catalogue import Described

Name = Annotated[str, typer.Argument(help="One strategy, such as scaffold, with its equation.")]


@reported
def strategies(name: Name = "", as_json: Json = False) -> None:
    """List every strategy with its paper, where it is valid and what it keeps from round to round; or show one."""
    from dataclasses import asdict

    from shoal.algorithms.catalogue import kept
    from shoal.algorithms.catalogue import strategies as every

    found = [every()[name]] if name else list(every())
    if as_json:
        for one in found:
            print_json({**asdict(one), "page": one.page})
    elif name:
        _print_one(found[0])
    else:
        print_table(
            ("name", "paper", "valid in", "kept"),
            ((one.name, one.short, ", ".join(one.valid), kept(one)) for one in found),
        )


def _print_one(one: "Described") -> None:
    from shoal.algorithms.catalogue import kept

    lines = {
        "paper": one.paper,
        "equation": one.equation,
        "call": one.call,
        "valid in": ", ".join(one.valid),
        "kept": kept(one),
        "page": one.page,
    }
    typer.echo(one.name)
    for said, text in lines.items():
        typer.echo(f"  {said}: {text}")

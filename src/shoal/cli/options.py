"""Options that several commands share."""

import re
from pathlib import Path
from typing import Annotated

import typer

Url = Annotated[str, typer.Option("--url", envvar="SHOAL_URL", help="Address of the coordinator.")]
MaybeUrl = Annotated[str | None, typer.Option("--url", envvar="SHOAL_URL", help="Address of the coordinator.")]
MaybeToken = Annotated[
    str | None, typer.Option("--token", envvar="SHOAL_TOKEN", help="Token of a person; keep it secret.")
]
Token = Annotated[str, typer.Option("--token", envvar="SHOAL_TOKEN", help="Token of a person; keep it secret.")]
Ca = Annotated[
    Path | None,
    typer.Option("--ca", envvar="SHOAL_CA", metavar="FILE.pem", help="Certificates to trust beside the usual ones."),
]
Json = Annotated[bool, typer.Option("--json", help="Print one JSON object a line.")]
StopWithStdin = Annotated[bool, typer.Option("--stop-with-stdin", hidden=True)]
Database = Annotated[
    str | None,
    typer.Option(
        "--database",
        envvar="SHOAL_DATABASE",
        metavar="URL",
        help="A PostgreSQL database, postgresql://USER@HOST/NAME, not SQLite in the home. Give a password only by the "
        "environment variable, or in a PGPASSFILE.",
        show_default=False,
        show_envvar=True,
    ),
]
Home = Annotated[Path, typer.Option("--home", envvar="SHOAL_HOME", help="Folder that keeps everything.")]

UNITS = {"": 1, "B": 1, "KB": 10**3, "MB": 10**6, "GB": 10**9, "TB": 10**12} | {
    f"{letter}IB": 1 << (10 * power) for power, letter in enumerate("KMGT", 1)
}


def size(text: str) -> int:
    """Read a number of bytes, with or without a unit: 1500, 10GB, 1.5 GiB."""
    found = re.fullmatch(r"(\d+(?:\.\d+)?)\s*([a-z]*)", str(text).strip().lower())
    if found is None or found[2].upper() not in UNITS:
        raise typer.BadParameter(f"{text!r} is no size: write a number and a unit, such as 500MB or 10GiB")
    return int(float(found[1]) * UNITS[found[2].upper()])


TIMES = {"s": 1.0, "m": 60.0, "h": 3600.0, "d": 86400.0}


def duration(text: str) -> float:
    """Read a time in seconds, with or without a unit: 90, 30m, 12h, 7d."""
    found = re.fullmatch(r"(\d+(?:\.\d+)?)\s*([smhd]?)", str(text).strip().lower())
    if found is None:
        raise typer.BadParameter(f"{text!r} is no time: write a number and a unit, such as 12h or 7d")
    return float(found[1]) * TIMES[found[2] or "s"]


CONNECT = "export SHOAL_URL=http://127.0.0.1:8080 SHOAL_TOKEN=ADMIN-TOKEN"
"""What to type once before the commands that call a coordinator."""


def both(url: str | None, token: str | None) -> tuple[str, str]:
    """Return address and token where a command turns out to need them. Raises BadParameter without one."""
    if url is None or token is None:
        raise typer.BadParameter("give both, or set SHOAL_URL and SHOAL_TOKEN", param_hint="--url and --token")
    return url, token


def example(*lines: str) -> str:
    """Return the end of a command's help: what to type."""
    return "\n".join(["\b", "Example:", *(f"  {line}" for line in lines)])


def no_password(invoked: typer.Context, url: str | None) -> None:
    """Refuse a password on the command line, which every user of the machine can read."""
    source = invoked.get_parameter_source("database")
    if url is not None and source is not None and source.name == "COMMANDLINE" and re.search(r"//[^/@]*:[^/@]*@", url):
        raise typer.BadParameter(
            "a password on the command line can be read by others on this machine: put the URL into SHOAL_DATABASE",
            param_hint="--database",
        )


def no_options(invoked: typer.Context) -> None:
    """Refuse options that stand before a subcommand, which would not see them."""
    sources = {name: invoked.get_parameter_source(name) for name in invoked.params}
    given = [name for name, source in sources.items() if source is not None and source.name == "COMMANDLINE"]
    if given:
        option = given[0].removeprefix("as_").replace("_", "-")
        raise typer.BadParameter(f"give --{option} after {invoked.invoked_subcommand!r}, not before it")

"""Options that several commands share."""

import re
from pathlib import Path
from typing import Annotated

import typer

Url = Annotated[str, typer.Option("--url", envvar="SHOAL_URL", help="Address of the coordinator.")]
Token = Annotated[str, typer.Option("--token", envvar="SHOAL_TOKEN", help="Token of a person; keep it secret.")]
Json = Annotated[bool, typer.Option("--json", help="Print one JSON object a line.")]
StopWithStdin = Annotated[bool, typer.Option("--stop-with-stdin", hidden=True)]

CONNECT = "export SHOAL_URL=http://127.0.0.1:8080 SHOAL_TOKEN=ADMIN-TOKEN"
"""What to type once before the commands that call a coordinator."""


def example(*lines: str) -> str:
    """Return the end of a command's help: what to type."""
    return "\n".join(["\b", "Example:", *(f"  {line}" for line in lines)])

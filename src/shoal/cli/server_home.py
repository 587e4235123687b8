"""`shoal server backup`, `restore` and `migrate`: what is done to a home as a whole."""

from pathlib import Path
from typing import Annotated

import typer

from shoal.cli.ending import reported
from shoal.cli.options import Database, Home, Json, no_password
from shoal.cli.output import print_json

HOME = Path("~/.shoal/server")
Copy = Annotated[bool, typer.Option("--copy", help="Copy models even where linking them would do.")]


@reported
def backup(
    path: Annotated[Path, typer.Argument(metavar="PATH", help="A folder to make.")],
    home: Home = HOME,
    copy: Copy = False,
    as_json: Json = False,
) -> None:
    """Copy a home, also while its coordinator runs.

    On the disk of the home, models are linked and take no room; to outlive that disk, back up to another one.
    """
    from shoal.server.backup import back_up

    made = back_up(home.expanduser(), path.expanduser(), copy=copy)
    if as_json:
        print_json({"path": str(path), "tasks": made.tasks, "blobs": len(made.blobs), "bytes": made.size})
    else:
        typer.echo(f"wrote {path}: {made.tasks} tasks, {len(made.blobs)} blobs, {made.size} bytes")


@reported
def restore(
    path: Annotated[Path, typer.Argument(metavar="PATH", help="What `shoal server backup` made.")],
    home: Home = HOME,
    as_json: Json = False,
) -> None:
    """Make a home from a backup, after checking every byte of it."""
    from shoal.server.backup import restore

    restored = restore(path.expanduser(), home.expanduser())
    if as_json:
        print_json({"home": str(home), "tasks": restored.tasks, "blobs": len(restored.blobs), "bytes": restored.size})
    else:
        typer.echo(f"restored {restored.tasks} tasks to {home}; start it: shoal server --home {home}")


@reported
def migrate(invoked: typer.Context, home: Home = HOME, database: Database = None, as_json: Json = False) -> None:
    """Bring the home of an earlier Shoal up to date; its coordinator must be stopped."""
    no_password(invoked, database)
    from shoal.server.backup import migrate

    before, after = migrate(home.expanduser(), database)
    if as_json:
        print_json({"home": str(home), "before": before, "after": after})
    elif before == after:
        typer.echo(f"{home} is at revision {after} already")
    else:
        typer.echo(f"migrated {home} from revision {before} to {after}")

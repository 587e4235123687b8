"""`shoal server`."""

import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from shoal.cli.ending import end_on_sigterm, reported
from shoal.cli.options import Json, StopWithStdin
from shoal.cli.output import print_json
from shoal.cli.stdin import stop_when_closed
from shoal.demo.imports import uncollected

if TYPE_CHECKING:
    from shoal.server.serve import Announcement

Home = Annotated[Path, typer.Option("--home", envvar="SHOAL_HOME", help="Folder that keeps everything.")]
Host = Annotated[str, typer.Option("--host", help="Address to listen on; 0.0.0.0 for every network.")]
Port = Annotated[int, typer.Option("--port", min=0, max=65535, help="Port to listen on; 0 takes a free one.")]
Origins = Annotated[
    list[str] | None,
    typer.Option("--allow-origin", metavar="URL", help="Let the pages of this origin call; may be given again."),
]
Page = Annotated[
    Path | None,
    typer.Option("--page", metavar="DIR", hidden=True, help="Experimental: serve this folder under /page/."),
]


@reported
def server(
    home: Home = Path("~/.shoal/server"),
    host: Host = "127.0.0.1",
    port: Port = 8080,
    allow_origin: Origins = None,
    page: Page = None,
    as_json: Json = False,
    stop_with_stdin: StopWithStdin = False,
) -> None:
    """Run a coordinator.

    Prints its address and, when its home is new, two tokens that it never shows again.
    """
    with uncollected():
        from shoal.server.serve import serve

    _log_to_stderr(as_json)
    if stop_with_stdin:
        stop_when_closed()
    # uvicorn stops on SIGTERM and then raises it once more, for the handler that was there before
    end_on_sigterm()
    announce = print_json if as_json else _announce
    serve(home.expanduser(), host, port, announce=announce, page=page, origins=allow_origin or ())


def _announce(announcement: "Announcement") -> None:
    typer.echo(f"coordinator: {announcement.url}\nhome:        {announcement.home}")
    if announcement.admin_token is None or announcement.enrolment_token is None:
        typer.echo("The tokens are those of its first start.")
        return
    typer.echo(
        f"\nTwo tokens, shown only now. Researchers use the first, devices join with the second:\n"
        f"  admin token:     {announcement.admin_token}\n"
        f"  enrolment token: {announcement.enrolment_token}\n"
        f"\nNext, in another terminal:\n"
        f"  export SHOAL_URL={announcement.url} SHOAL_TOKEN={announcement.admin_token}\n"
        f"  shoal tasks"
    )


def _log_to_stderr(as_json: bool) -> None:
    import structlog

    processors = structlog.processors
    form = (
        [processors.format_exc_info, processors.JSONRenderer()] if as_json else [structlog.dev.ConsoleRenderer(False)]
    )
    structlog.configure(
        processors=[processors.add_log_level, processors.TimeStamper(fmt="iso"), *form],
        logger_factory=structlog.PrintLoggerFactory(sys.stderr),
    )

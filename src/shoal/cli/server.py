"""`shoal server`."""

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, TypeAlias

import typer

from shoal.cli.ending import end_on_sigterm, reported
from shoal.cli.options import Database, Home, Json, StopWithStdin, example, no_options, no_password, size
from shoal.cli.output import print_json
from shoal.cli.server_home import backup, migrate, restore
from shoal.cli.stdin import stop_when_closed
from shoal.demo.imports import uncollected

if TYPE_CHECKING:
    from shoal.server.serve import Announcement

    Announce: TypeAlias = Callable[[Announcement], None]

Host = Annotated[str, typer.Option("--host", help="Address to listen on; 0.0.0.0 for every network.")]
Port = Annotated[int, typer.Option("--port", min=0, max=65535, help="Port to listen on; 0 takes a free one.")]
Origins = Annotated[
    list[str] | None,
    typer.Option("--allow-origin", metavar="URL", help="Let the pages of this origin call; may be given again."),
]
Page = Annotated[
    Path | None,
    typer.Option("--page", metavar="DIR", help="Serve this folder, an app for browsers, under /page/."),
]
WebRuntime = Annotated[
    Path | None,
    typer.Option(
        "--web-runtime", metavar="DIR", help="The dist/ of onnxruntime-web, for pages; default: the package shoal-web."
    ),
]
Keep = Annotated[
    int | None,
    typer.Option("--keep-versions", metavar="N", min=1, help="Keep the newest N of each model, not all."),
]
Quota = Annotated[
    int | None,
    typer.Option(
        "--quota", metavar="SIZE", parser=size, help="The most that the home may take, such as 10GB; default: no bound."
    ),
]
Reserve = Annotated[
    int,
    typer.Option("--reserve", metavar="SIZE", parser=size, help="What uploads leave free on the disk."),
]
TokenFile = Annotated[
    Path | None,
    typer.Option("--token-file", metavar="FILE", help="Write the tokens of the first start here, not to the screen."),
]
Approval = Annotated[
    bool, typer.Option("--approval", help="Let devices without a token wait until a person approves them.")
]
Cert = Annotated[Path | None, typer.Option("--cert", metavar="FILE", help="Serve by TLS with this certificate chain.")]
CertKey = Annotated[Path | None, typer.Option("--key", metavar="FILE", help="The certificate's private key.")]
Insecure = Annotated[
    bool, typer.Option("--insecure-http", help="Listen beyond this machine without TLS, as behind a proxy that has it.")
]
Standby = Annotated[
    bool, typer.Option("--standby", help="Wait while another coordinator leads the database, then go on for it.")
]
MetricsPublic = Annotated[bool, typer.Option("--metrics-public", help="Let everybody read /metrics without a token.")]

server = typer.Typer(invoke_without_command=True, rich_markup_mode=None)
server.command(epilog=example("shoal server backup /backups/monday --home ~/.shoal/server"))(backup)
server.command(epilog=example("shoal server restore /backups/monday --home /srv/shoal"))(restore)
server.command(epilog=example("shoal server migrate --home ~/.shoal/server"))(migrate)


@server.callback(epilog=example("shoal server --home ~/.shoal/server --port 8080"))
@reported
def serve_(
    invoked: typer.Context,
    home: Home = Path("~/.shoal/server"),
    host: Host = "127.0.0.1",
    port: Port = 8080,
    allow_origin: Origins = None,
    page: Page = None,
    web_runtime: WebRuntime = None,
    keep_versions: Keep = None,
    quota: Quota = None,
    reserve: Reserve = "100MB",  # type: ignore[assignment]  # typer parses it
    metrics_public: MetricsPublic = False,
    token_file: TokenFile = None,
    approval: Approval = False,
    cert: Cert = None,
    key: CertKey = None,
    insecure_http: Insecure = False,
    database: Database = None,
    standby: Standby = False,
    as_json: Json = False,
    stop_with_stdin: StopWithStdin = False,
) -> None:
    """Run a coordinator.

    Prints its address and, when its home is new, two tokens that it never shows again.
    """
    if invoked.invoked_subcommand is not None:
        no_options(invoked)
        return
    no_password(invoked, database)
    with uncollected():
        from shoal.cli.logs import log_to_stderr
        from shoal.server.limits import Limits
        from shoal.server.serve import serve
        from shoal.wire import tracing
        from shoal.wire.lock import Lock

    log_to_stderr(as_json)
    if stop_with_stdin:
        stop_when_closed()
    # uvicorn stops on SIGTERM and then raises it once more, for the handler that was there before
    end_on_sigterm()
    announce: Announce = print_json if as_json else _announce
    if token_file is not None:
        announce = _keeping(token_file.expanduser(), announce)
    with tracing.as_environment_says("shoal-server"):
        serve(
            home.expanduser(),
            host,
            port,
            announce=announce,
            page=page,
            web_runtime=web_runtime,
            origins=allow_origin or (),
            limits=Limits(keep_versions, quota, reserve),
            metrics_public=metrics_public,
            approval=approval,
            lock=Lock(cert, key, insecure_http),
            where=database,
            standby=standby,
        )


def _keeping(path: Path, announce: "Announce") -> "Announce":
    """Write the tokens to a file that only its owner may read, where an output is kept in a log."""
    from dataclasses import replace

    import msgspec

    from shoal.store.durable import write_durably

    def keep(announcement: "Announcement") -> None:
        if announcement.admin_token is not None:
            tokens = {"admin_token": announcement.admin_token, "enrolment_token": announcement.enrolment_token}
            write_durably(path, [msgspec.json.encode(tokens), b"\n"], 0o600)
        announce(replace(announcement, admin_token=None, enrolment_token=None))

    return keep


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

"""`shoal worker`."""

import re
import secrets
import stat
from pathlib import Path
from typing import Annotated

import typer

from shoal.cli.ending import reported
from shoal.cli.options import Json, StopWithStdin, size
from shoal.cli.output import print_json
from shoal.cli.stdin import stop_when_closed
from shoal.core.errors import ConfigurationError
from shoal.demo.imports import need_torch, uncollected

Name = Annotated[str, typer.Option(help="What clients see as this worker's name.")]
Data = Annotated[
    list[Path] | None,
    typer.Option(metavar="FILE", help="A CSV or NPZ file that clients get handles of; may be given again."),
]
Target = Annotated[
    str | None, typer.Option(metavar="COLUMN", help="What is to be predicted, in CSV files that have it.")
]
People = Annotated[
    list[str] | None,
    typer.Option("--person", metavar="NAME", help="Who may connect, with a token of their own; may be given again."),
]
TokenFile = Annotated[
    Path | None,
    typer.Option(
        "--token-file", metavar="FILE", help="Keep the tokens here, for you alone to read, not on the screen."
    ),
]
PolicyFile = Annotated[
    Path | None,
    typer.Option("--policy", metavar="FILE", help="What may leave, in TOML; without it nothing does (docs/remote.md)."),
]
WorkerHome = Annotated[
    Path | None,
    typer.Option(
        "--home", metavar="DIR", help="Keeps requests, the audit log and budgets; default: ~/.shoal/worker-NAME."
    ),
]
Host = Annotated[str, typer.Option("--host", help="Address to listen on; 0.0.0.0 for every network.")]
Port = Annotated[int, typer.Option("--port", min=0, max=65535, help="Port to listen on; 0 takes a free one.")]
Cert = Annotated[Path | None, typer.Option("--cert", metavar="FILE", help="Serve by TLS with this certificate chain.")]
CertKey = Annotated[Path | None, typer.Option("--key", metavar="FILE", help="The certificate's private key.")]
Insecure = Annotated[
    bool, typer.Option("--insecure-ws", help="Listen beyond this machine without TLS, as behind a proxy that has it.")
]
Lease = Annotated[float, typer.Option(min=0.0, help="Seconds for which tensors of a client that is gone are kept.")]
Memory = Annotated[
    int, typer.Option("--memory", metavar="SIZE", parser=size, help="The most that one client's tensors may take.")
]
Clients = Annotated[int, typer.Option(min=1, help="Sessions at once.")]
Hours = Annotated[float, typer.Option(min=0.0, help="Processor hours that one session may use.")]
Threads = Annotated[int, typer.Option(min=1, help="Threads that one operator may use.")]


@reported
def worker(
    name: Name = "worker",
    data: Data = None,
    target: Target = None,
    policy: PolicyFile = None,
    home: WorkerHome = None,
    person: People = None,
    token_file: TokenFile = None,
    host: Host = "127.0.0.1",
    port: Port = 8777,
    cert: Cert = None,
    key: CertKey = None,
    insecure_ws: Insecure = False,
    lease: Lease = 60.0,
    memory: Memory = "4GiB",  # type: ignore[assignment]  # typer parses it
    clients: Clients = 64,
    hours: Hours = 24.0,
    threads: Threads = 1,
    as_json: Json = False,
    stop_with_stdin: StopWithStdin = False,
) -> None:
    """Hold data for remote tensors: clients compute here, values leave only as you allow.

    A file DATA.toml beside DATA.csv says more about it: description, tags, target, ranges of columns.
    """
    need_torch()
    with uncollected():
        import torch

        from shoal.cli.logs import log_to_stderr
        from shoal.remote import owned
        from shoal.remote.catalogue import Catalogue
        from shoal.remote.home import held
        from shoal.remote.host import Host as WorkerHost
        from shoal.remote.host import Tokens
        from shoal.remote.limits import Limits
        from shoal.remote.policy import Policy, read_policy
        from shoal.remote.rules import Desk
        from shoal.remote.serving import run
        from shoal.wire.listening import address, listen
        from shoal.wire.lock import Lock

    log_to_stderr(as_json)
    if stop_with_stdin:
        stop_when_closed()
    torch.set_num_threads(threads)
    lock = Lock(cert, key, insecure_ws, plain="ws")
    lock.check(host)
    catalogue = Catalogue([owned.read(path.expanduser(), target) for path in data or ()])
    granted = Policy() if policy is None else read_policy(policy.expanduser())
    people = person or ["researcher"]
    _check_names(people)
    granted.check(people, catalogue.names)
    folder = (home or Path(f"~/.shoal/worker-{name}")).expanduser()
    desk = Desk.at(folder, granted)
    with held(folder), listen(host, port) as listener:
        tokens, fresh = _tokens(people, token_file)
        told: dict[str, object] = {"url": address(lock.scheme, listener), "name": name}
        told["tokens"] = tokens if fresh and token_file is None else None
        told["fingerprint"] = lock.fingerprint()
        limits = Limits(bytes=memory, seconds=hours * 3600, clients=clients, lease=lease)
        served = WorkerHost(name, Tokens(tokens), catalogue, limits, desk.rules)
        run(served, listener, lock.context(), lambda: print_json(told) if as_json else _announce(told, token_file))


def _check_names(people: list[str]) -> None:
    """Raise ConfigurationError for a name that would not do in the name of a file, or on a terminal."""
    for each in people:
        if not re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9._@-]{0,63}", each):
            raise ConfigurationError(
                f"a person named {each!r}", "use up to 64 letters, digits and . _ @ -, with a letter or digit first"
            )


def _tokens(people: list[str], file: Path | None) -> tuple[dict[str, str], bool]:
    """Return the tokens by person, and whether any of them is new; with a file, those that it keeps."""
    import msgspec

    from shoal.store.durable import write_durably

    kept = {} if file is None else _kept(file.expanduser())
    tokens = {person: kept.get(person) or f"shoal_worker_{secrets.token_urlsafe(32)}" for person in people}
    if file is not None and tokens != kept:
        write_durably(file.expanduser(), [msgspec.json.encode({**kept, **tokens}), b"\n"], 0o600)
    return tokens, tokens != kept


def _kept(file: Path) -> dict[str, str]:
    import msgspec

    if not file.exists():
        return {}
    if file.stat().st_mode & (stat.S_IRWXG | stat.S_IRWXO):
        raise ConfigurationError(f"others may read {file}, which holds tokens", f"chmod 600 {file}")
    try:
        return msgspec.json.decode(file.read_bytes(), type=dict[str, str])
    except msgspec.MsgspecError as error:
        raise ConfigurationError(f"{file} is no file of tokens", "give another --token-file, or delete it") from error


def _announce(told: dict[str, object], file: Path | None) -> None:
    typer.echo(f"worker:      {told['name']}\naddress:     {told['url']}")
    if told["fingerprint"]:
        typer.echo(f"fingerprint: {told['fingerprint']}")
    tokens = told["tokens"]
    if not isinstance(tokens, dict):
        typer.echo(f"The tokens are in {file}.")
        return
    typer.echo("\nTokens, shown only now; each is for one person:")
    for person, token in tokens.items():
        typer.echo(f"  {person}: {token}")
    typer.echo(f'\nNext, in Python:\n  shoal.connect("{told["url"]}", token="...")')

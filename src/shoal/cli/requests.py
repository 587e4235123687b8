"""`shoal requests` and `shoal audit`: what clients of a worker ask its owner for, and what left."""

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from shoal.cli.ending import reported
from shoal.cli.options import Json, example
from shoal.cli.output import moment, print_json, print_table

if TYPE_CHECKING:
    from shoal.remote.requests import Request, Requests

WorkerHome = Annotated[Path, typer.Option("--home", envvar="SHOAL_WORKER_HOME", help="The worker's home.")]
Id = Annotated[str, typer.Argument(metavar="REQUEST", help="Its id, such as carol-3.")]
Note = Annotated[str, typer.Option("--note", help="What its person is told.")]
Times = Annotated[int, typer.Option("--times", min=1, help="How often each array may leave.")]
Rows = Annotated[int, typer.Option("--rows", min=0, help="A model: rows of each data set that it has to have seen.")]
Steps = Annotated[int, typer.Option("--steps", min=0, help="A model: steps that it has to have made.")]
Clip = Annotated[float, typer.Option("--clip", min=0.0, help="A model: the norm to which each change is shortened.")]
State = Annotated[
    bool,
    typer.Option("--state", help="A model: also gradients, moments and running statistics, which may show a batch."),
]

requests = typer.Typer(no_args_is_help=True, rich_markup_mode=None, help="What clients ask a worker's owner for.")
audit = typer.Typer(no_args_is_help=True, rich_markup_mode=None, help="What left a worker, and what was refused.")
AT = "--home ~/.shoal/worker-bob"


@requests.command("list", epilog=example(f"shoal requests list {AT}"))
@reported
def list_(home: WorkerHome, as_json: Json = False) -> None:
    """List the requests, oldest first."""
    found = list(_queue(home))
    if as_json:
        for request in found:
            print_json(request)
        return
    if not found:
        typer.echo("No requests. Clients file one with tensor.get(reason='...').")
        return
    columns = ("request", "state", "filed", "kind", "what", "reason")
    print_table(columns, [(r.id, r.state, moment(r.at), r.kind, r.what, r.reason) for r in found])


@requests.command(epilog=example(f"shoal requests show carol-3 {AT}"))
@reported
def show(request: Id, home: WorkerHome, as_json: Json = False) -> None:
    """Show a request whole, with the program that would be approved."""
    found = _queue(home).find(request)
    if as_json:
        print_json(found)
        return
    typer.echo("\n".join(_told(found)))


@requests.command(
    epilog=example(
        f"shoal requests approve carol-3 {AT}",
        f"shoal requests approve carol-4 --rows 200 --steps 100 --clip 1 {AT}",
    )
)
@reported
def approve(
    request: Id,
    home: WorkerHome,
    times: Times = 1,
    rows: Rows = 0,
    steps: Steps = 0,
    clip: Clip = 0.0,
    state: State = False,
    note: Note = "",
    as_json: Json = False,
) -> None:
    """Let what a request is for leave; its person asks once more."""
    from shoal.remote.requests import Terms

    queue = _queue(home)
    found = queue.find(request)
    model = found.kind == "model"
    if model and not (rows >= 2 and steps >= 2 and clip > 0):
        raise typer.BadParameter("a model is approved on terms: give --rows and --steps of at least 2, and --clip")
    if not model and (rows or steps or clip or state):
        raise typer.BadParameter(
            f"--rows, --steps, --clip and --state are for models, {found.id} is for a {found.kind}"
        )
    if found.kind == "value" and times != 1:
        raise typer.BadParameter("a single value leaves once; --times is for programs and models")
    _decided(home, queue.approve(request, Terms(times, rows, steps, clip, state), note), as_json)


@requests.command(epilog=example(f"shoal requests refuse carol-3 --note 'too few rows' {AT}"))
@reported
def refuse(request: Id, home: WorkerHome, note: Note = "", as_json: Json = False) -> None:
    """Let what a request is for stay, also where it was approved before."""
    _decided(home, _queue(home).refuse(request, note), as_json)


@audit.command(epilog=example(f"shoal audit verify {AT}"))
@reported
def verify(
    home: WorkerHome,
    expect: Annotated[str, typer.Option("--expect", metavar="DIGEST", help="A digest that it had once.")] = "",
    as_json: Json = False,
) -> None:
    """Check that no line of the log was changed, taken out or put in; print its newest digest, to be kept elsewhere."""
    from shoal.core.errors import CorruptStore
    from shoal.remote.audit import START, Audit

    newest, count, seen = START, 0, expect in ("", START)
    for line in Audit(home.expanduser() / "audit.jsonl").lines():
        newest, count = str(line["digest"]), count + 1
        seen = seen or newest == expect
    if not seen:
        raise CorruptStore(f"no line of the log has the digest {expect}", "lines were cut off; compare with a copy")
    print_json({"lines": count, "digest": newest}) if as_json else typer.echo(f"{count} lines hold\ndigest: {newest}")


@audit.command("show", epilog=example(f"shoal audit show {AT}"))
@reported
def log(home: WorkerHome, as_json: Json = False) -> None:
    """Print the log, oldest first."""
    from shoal.remote.audit import Audit

    lines = list(Audit(home.expanduser() / "audit.jsonl").lines())
    if as_json:
        for line in lines:
            print_json(line)
        return
    rows = [(moment(x["at"]), x["event"], x["person"], ", ".join(x.get("data", ())), x.get("what", "")) for x in lines]
    print_table(("when", "event", "person", "data", "what"), rows)


def _queue(home: Path) -> "Requests":
    from shoal.core.errors import ConfigurationError
    from shoal.remote.requests import Requests

    if not home.expanduser().is_dir():
        raise ConfigurationError(f"{home} is no worker's home", "give --home as `shoal worker` has it")
    return Requests(home.expanduser() / "requests")


def _told(found: "Request") -> Sequence[str]:
    lines = [
        f"request: {found.id} ({found.state})",
        f"person:  {found.person}, {moment(found.at)}",
        f"what:    {found.what}",
        f"reason:  {found.reason}",
    ]
    if found.kind == "model":
        lines.append(f"trained: {found.steps} steps over {found.rows} rows so far")
    if found.program:
        lines += [f"digest:  {found.key}", "reads:", *(f"  {each}" for each in found.inputs), "program:"]
        lines += [f"  {line}" for line in found.program.splitlines()]
    else:
        lines.append("It was made step by step, outside a recorded program: only this one value would leave.")
    return lines


def _decided(home: Path, request: "Request", as_json: bool) -> None:
    import time

    from shoal.remote.audit import Audit

    Audit(home.expanduser() / "audit.jsonl").write(
        time.time(),
        request.state,
        person=request.person,
        data=list(request.data),
        what=request.what,
        request=request.id,
        key=request.key,
    )
    print_json(request) if as_json else typer.echo(f"{request.id} is {request.state}")

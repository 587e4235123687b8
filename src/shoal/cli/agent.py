"""`shoal agent`."""

import json
import threading
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from shoal.cli.ending import end_on_sigterm, reported
from shoal.cli.options import Ca, Json, StopWithStdin, example, no_options
from shoal.cli.output import print_json
from shoal.cli.receipts import receipts
from shoal.cli.stdin import first_line, stop_when_closed
from shoal.demo.imports import need_torch, uncollected

if TYPE_CHECKING:
    from shoal.agent.data import OwnerData
    from shoal.train.task import Task

Url = Annotated[
    str | None,
    typer.Option(
        envvar="SHOAL_URL",
        help='Address of the coordinator; "-" reads one line {"url": ..., "token": ...} from standard input.',
    ),
]
Token = Annotated[
    str | None, typer.Option(envvar="SHOAL_TOKEN", help="Enrolment token; needed once, to join. Keep it secret.")
]
Code = Annotated[
    str | None,
    typer.Option(metavar="FILE.py[:TASK]", help="Your own code of the task; without it only statistics are released."),
]
Plans = Annotated[
    list[str] | None,
    typer.Option("--plan", metavar="TASK", help="Train this task by its plan: needs onnxruntime, no code, no torch."),
]
Data = Annotated[
    Path | None,
    typer.Option(metavar="FILE.csv", help="Your rows; without it, what the function `data` of --code gives."),
]
Home = Annotated[
    Path | None, typer.Option(help="Folder of this device: keys, log of releases.", show_default="~/.shoal/agents/NAME")
]
SealKey = Annotated[
    Path | None,
    typer.Option(
        "--seal-key",
        envvar="SHOAL_SEAL_KEY_FILE",
        metavar="FILE",
        help="A file of 32 random bytes, kept elsewhere: what the home keeps is encrypted with them.",
    ),
]
MinimumRows = Annotated[int, typer.Option(min=1, help="Release nothing about fewer rows than this.")]
Holdout = Annotated[
    float, typer.Option(min=0.0, max=0.9, help="Share of your rows kept out of training, to measure versions on.")
]
Device = Annotated[str, typer.Option(metavar="NAME", help="Where torch trains: cpu, cuda, cuda:1, mps.")]
Versions = Annotated[
    bool, typer.Option("--versions/--no-versions", help="Tell versions of your software and the digest of your code.")
]
DataDigest = Annotated[
    bool, typer.Option("--data-digest", help="Tell a keyed digest of your rows, so that a run can be repeated exactly.")
]
Distributions = Annotated[
    bool, typer.Option("--distributions", help="Release histograms and quantiles of your columns too.")
]
Evaluation = Annotated[
    bool, typer.Option("--evaluation/--no-evaluation", help="Release metrics of a version on the rows held out.")
]
OwnMetrics = Annotated[bool, typer.Option("--own-metrics", help="Also where they may be yours alone.")]
Threads = Annotated[int, typer.Option(min=1, help="Threads that training may use.")]


agent = typer.Typer(invoke_without_command=True, rich_markup_mode=None)
agent.command(epilog=example("shoal agent receipts --home ~/.shoal/agents/bob --verify"))(receipts)


@agent.callback(
    epilog=example(
        "export SHOAL_URL=http://127.0.0.1:8080 SHOAL_TOKEN=ENROLMENT-TOKEN",
        "shoal agent --name bob --code task.py --data rows.csv --target price",
    )
)
@reported
def take_part(
    invoked: typer.Context,
    url: Url = None,
    name: Annotated[str | None, typer.Option(help="Name of this device; unique at the coordinator.")] = None,
    token: Token = None,
    code: Code = None,
    plan: Plans = None,
    data: Data = None,
    target: Annotated[str | None, typer.Option(metavar="COLUMN", help="The column of --data to predict.")] = None,
    home: Home = None,
    seal_key: SealKey = None,
    statistics: Annotated[
        bool, typer.Option("--statistics/--no-statistics", help="Release statistics of your columns.")
    ] = True,
    distributions: Distributions = False,
    evaluation: Evaluation = True,
    own_metrics: OwnMetrics = False,
    minimum_rows: MinimumRows = 10,
    holdout: Holdout = 0.0,
    device: Device = "cpu",
    versions: Versions = True,
    data_digest: DataDigest = False,
    threads: Threads = 1,
    ca: Ca = None,
    as_json: Json = False,
    stop_with_stdin: StopWithStdin = False,
) -> None:
    """Take part in training with your own rows.

    Trains when asked and sends only the change of the model. Prints what it is about to release before it does, and
    keeps the list in releases.jsonl in its home.
    """
    if invoked.invoked_subcommand is not None:
        no_options(invoked)
        return
    if url is None or name is None:
        raise typer.BadParameter("give both; --url also as SHOAL_URL", param_hint="--url and --name")
    if data is None and code is None:
        raise typer.BadParameter("give your rows, or code with a function `data`", param_hint="--data or --code")
    if (data is None) != (target is None):
        raise typer.BadParameter("give both or neither", param_hint="--data and --target")
    with uncollected():
        from shoal.agent.agent import Agent
        from shoal.agent.home import AgentHome
        from shoal.agent.policy import Policy
        from shoal.agent.sealed import Seal
        from shoal.agent.settings import LocalSettings
        from shoal.wire import tracing

    if code is not None:
        need_torch()
        _check_device(device)
    if url == "-":
        url, token = _invitation()
    rows = _rows(data, target, code)
    if stop_with_stdin:
        stop_when_closed()
    end_on_sigterm()
    seal = Seal(None if seal_key is None else seal_key.read_bytes())
    with AgentHome(home or Path("~/.shoal/agents").expanduser() / name, seal) as folder:
        participant = Agent(
            url,
            name,
            folder,
            rows,
            token=token,
            code=None if code is None else lambda: _loaded(code, rows.features, threads),
            plans=plan or (),
            policy=Policy(
                statistics=statistics,
                minimum_rows=minimum_rows,
                versions=versions,
                data_digest=data_digest,
                evaluation=evaluation,
                own_metrics=own_metrics,
                distributions=distributions,
            ),
            settings=LocalSettings(holdout, device),
            ca=ca,
            say=(lambda line: print_json({"said": line})) if as_json else typer.echo,
        )
        with tracing.as_environment_says("shoal-agent"):
            participant.run(threading.Event())


def _check_device(device: str) -> None:
    if device == "cpu":
        return  # torch is imported only when it has to be
    from shoal.train.device import torch_device

    torch_device(device)


def _invitation() -> tuple[str, str]:
    line = first_line()
    if not line:
        raise typer.Exit  # whoever was to invite us is gone
    try:
        invitation = json.loads(line)
        return invitation["url"], invitation["token"]
    except (ValueError, TypeError, KeyError) as error:
        raise typer.BadParameter(
            'standard input begins with no {"url": ..., "token": ...}', param_hint="--url"
        ) from error


def _rows(data: Path | None, target: str | None, code: str | None) -> "OwnerData":
    from shoal.agent.data import TableData
    from shoal.data import read_csv

    if data is not None and target is not None:
        return TableData(read_csv(data, target), target)
    from shoal.agent.code import load_data

    assert code is not None  # one of the two was given
    return load_data(code)


def _loaded(code: str, features: int, threads: int) -> "Task":
    with uncollected():
        import torch

        from shoal.agent.code import load_task

    torch.set_num_threads(threads)
    return load_task(code, features)

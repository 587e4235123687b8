"""`shoal demo`."""

import contextlib
import shlex
import shutil
import signal
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from shoal.cli.demo_digits import check_options, demo_digits
from shoal.cli.ending import reported
from shoal.cli.options import Json

if TYPE_CHECKING:
    from shoal.demo.screen import Outcome, Screen


@reported
def demo(
    invoked: typer.Context,
    digits: Annotated[
        bool, typer.Option("--digits", help="Draw digits in a browser instead: opens a page, runs until Ctrl-C.")
    ] = False,
    owners: Annotated[int, typer.Option(min=1, help="How many owners the rows are dealt out to.")] = 2,
    rounds: Annotated[int, typer.Option(min=1, help="Rounds of federated averaging.")] = 100,
    seed: Annotated[int, typer.Option(help="Seed of the order in which owners visit their rows.")] = 1,
    shuffle: Annotated[
        bool, typer.Option("--shuffle/--no-shuffle", help="Visit rows in a new order each epoch.")
    ] = True,
    lr: Annotated[float, typer.Option(min=0.0, help="Learning rate of the owners.")] = 0.001,
    batch_size: Annotated[int, typer.Option(min=1, help="Rows in one step.")] = 8,
    local_epochs: Annotated[int, typer.Option(min=1, help="Passes over an owner's rows in one round.")] = 1,
    data: Annotated[
        Path | None, typer.Option(metavar="FILE.csv", help="Your own table, instead of Boston Housing.")
    ] = None,
    target: Annotated[str | None, typer.Option(metavar="COLUMN", help="The column of --data to predict.")] = None,
    keep: Annotated[bool, typer.Option("--keep", help="Keep every file of the run, and say where.")] = False,
    home: Annotated[Path | None, typer.Option(help="A new folder for the files of the run; it is kept.")] = None,
    port: Annotated[
        int, typer.Option(min=0, max=65535, help="With --digits: port of the page; 0 takes a free one.")
    ] = 8080,
    every: Annotated[float, typer.Option(min=1.0, help="With --digits: seconds between two rounds.")] = 15.0,
    web_runtime: Annotated[
        Path | None, typer.Option(metavar="DIR", help="With --digits: dist/ of onnxruntime-web; default: shoal-web.")
    ] = None,
    open_page: Annotated[bool, typer.Option("--open/--no-open", help="With --digits: open the page here.")] = True,
    as_json: Json = False,
) -> None:
    """Train a model with several owners on this machine.

    Starts a coordinator and one process for each owner. Rows never leave an owner's process: only statistics of
    columns and updates of the model do, and you see which. At the end the model is compared with one that was
    trained on all rows in one place.
    """
    check_options(invoked, digits)
    if (data is None) != (target is None):
        raise typer.BadParameter("give both or neither", param_hint="--data and --target")
    from shoal.demo.processes import interruptible

    with interruptible(), _folder(home, keep) as (folder, kept):
        if digits:
            from shoal.demo.digits.run import Settings as DigitsSettings

            demo_digits(DigitsSettings(owners, every, port, seed, web_runtime), folder, open_page, as_json)
            return
        from shoal.demo.run import run
        from shoal.demo.settings import Settings

        settings = Settings(owners, rounds, seed, shuffle, lr, batch_size, local_epochs, data, target)
        model_path = folder / "model.safetensors" if kept else Path(f"{settings.dataset}.safetensors")
        screen = _screen(as_json, rounds)
        try:
            outcome = run(settings, folder, model_path, screen)
        finally:
            screen.end()
        screen.outcome(outcome, _words(outcome, folder if kept else None))


@contextlib.contextmanager
def _folder(home: Path | None, keep: bool) -> Iterator[tuple[Path, bool]]:
    from shoal.demo.processes import ignoring

    folder = home or Path(tempfile.mkdtemp(prefix="shoal-demo-"))
    try:
        yield folder, keep or home is not None
    finally:
        if not keep and home is None:
            with ignoring(signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
                shutil.rmtree(folder)


def _screen(as_json: bool, rounds: int) -> "Screen":
    from shoal.demo.choice import choose
    from shoal.demo.screen import SCORE, JsonScreen

    return JsonScreen(sys.stdout, sys.stderr) if as_json else choose(sys.stdout, SCORE, rounds)


def _words(outcome: "Outcome", kept: Path | None) -> list[str]:
    model = shlex.quote(outcome.model_path)
    rounds = "1 round" if outcome.rounds == 1 else f"{outcome.rounds} rounds"
    tries = [
        (f"shoal models show {model}", "what the model holds"),
        ("shoal demo --owners 5 --rounds 20", "five owners"),
        ("shoal server", "a coordinator for your own task and devices"),
    ]
    if kept is not None:
        tries[1] = (f"cat {shlex.quote(str(kept / 'bob' / 'releases.jsonl'))}", "all that left bob's process")
    width = max(len(command) for command, _ in tries)
    return [
        f"test MSE {outcome.mse:9.3f}  federated, {rounds}",
        f"         {outcome.central_mse:9.3f}  the same model trained on all rows in one place",
        f"         {outcome.mean_mse:9.3f}  always predicting the mean",
        f"time     {outcome.seconds:9.1f}  s, of processors {outcome.cpu_seconds:.1f} s",
        f"model    {outcome.model_path}",
        *([] if kept is None else [f"files    {kept}"]),
        "",
        "Try next:",
        *(f"  {command.ljust(width)}  # {purpose}" for command, purpose in tries),
    ]

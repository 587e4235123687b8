"""`shoal simulate`."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from shoal.cli.ending import reported
from shoal.cli.options import Json
from shoal.cli.output import print_json
from shoal.demo.imports import need_torch, uncollected

if TYPE_CHECKING:
    from shoal.simulation.run import SimulatedRun


@reported
def simulate(
    code: Annotated[str, typer.Argument(metavar="FILE.py:TASK", help="File and name of a shoal.Task or function.")],
    rounds: Annotated[int, typer.Option(min=1, help="Rounds to train.")],
    clients: Annotated[str, typer.Option(help="Name in that file: list, mapping, source or function.")] = "clients",
    cohort: Annotated[int | None, typer.Option(min=1, help="Clients of a round; without it all.")] = None,
    selection: Annotated[
        str | None, typer.Option(metavar="NAME", help="Name in that file of what chooses a round's clients.")
    ] = None,
    population: Annotated[
        str | None,
        typer.Option(metavar="NAME", help="Name in that file of a Population: rounds in virtual time."),
    ] = None,
    seed: Annotated[int, typer.Option(help="Seed of everything random in the run.")] = 0,
    trainer: Annotated[str, typer.Option(help="auto, loop, vmapped, graph or compiled.")] = "auto",
    workers: Annotated[str, typer.Option(help='Processes that share a round, or "ray".')] = "1",
    device: Annotated[str, typer.Option(help="Where clients train: cpu, cuda, cuda:1.")] = "cpu",
    chunk: Annotated[int | None, typer.Option(min=1, help="Clients trained at once; else as fit the cache.")] = None,
    ray_address: Annotated[str | None, typer.Option(help="Ray cluster, with --workers ray; else this machine.")] = None,
    checkpoint: Annotated[Path | None, typer.Option(help="File to save the run in.")] = None,
    every: Annotated[int, typer.Option(min=1, help="Rounds between two checkpoints.")] = 10,
    resume: Annotated[Path | None, typer.Option(help="Checkpoint to go on from.")] = None,
    save: Annotated[Path | None, typer.Option(help="Safetensors file for the newest version.")] = None,
    as_json: Json = False,
) -> None:
    """Train a task over simulated clients, in this process or several."""
    need_torch()
    with uncollected():
        import shoal
        from shoal.agent.code import load_attribute, load_task
        from shoal.core.tree import pieces
        from shoal.store.durable import check_place, write_durably

    file = code.rpartition(":")[0] or code
    if save is not None:
        check_place(save)
    run = shoal.simulate(
        load_task(code, 1),
        load_attribute(f"{file}:{clients}"),
        rounds=rounds,
        cohort=cohort,
        selection=None if selection is None else load_attribute(f"{file}:{selection}"),
        population=None if population is None else load_attribute(f"{file}:{population}"),
        seed=seed,
        trainer=trainer,
        workers=int(workers) if workers.isdigit() else workers,  # type: ignore[arg-type]
        device=device,
        chunk=chunk,
        ray_address=ray_address,
        callbacks=[_print_row] if as_json else [],
        show=not as_json,
        checkpoint=checkpoint,
        every=every,
        resume=resume,
    )
    if save is not None:
        write_durably(save, pieces(run.params))
    if not as_json:
        _print_end(run)


def _print_row(run: "SimulatedRun") -> None:
    print_json(run.history[-1].cells())


def _print_end(run: "SimulatedRun") -> None:
    row = run.history[-1]
    typer.echo(f"trainer {run.choice.trainer}: {run.choice.reason}")
    for name, value in row.cells().items():
        typer.echo(f"{name:12} {value}")
    for failure in run.failures[-5:]:
        typer.echo(f"kept out of round {failure.round}: {failure.reason}")

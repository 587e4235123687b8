"""`shoal models list`, `show` and `download`."""

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from shoal.cli.ending import reported
from shoal.cli.options import CONNECT, Json, Token, Url, example
from shoal.cli.output import moment, print_json, print_table

if TYPE_CHECKING:
    from shoal.core.tree import Array, Tree

Named = Annotated[
    str, typer.Argument(metavar="TASK[@VERSION]", help="A task's id or name; by default its newest version.")
]

models = typer.Typer(
    help="List, look at and download versions of a model.", no_args_is_help=True, rich_markup_mode=None
)


@models.command("list", epilog=example(CONNECT, "shoal models list regression-1"))
@reported
def list_(
    task: Annotated[str, typer.Argument(help="Id or name of a task.")], url: Url, token: Token, as_json: Json = False
) -> None:
    """List the versions of a task's model."""
    from shoal.researcher.coordinator import Coordinator

    with Coordinator.connect(url, token=token) as coordinator:
        versions = coordinator.versions(task)
    if as_json:
        for version in versions:
            print_json(version)
        return
    rows = [
        (version.number, version.digest[:16], version.reports, _numbers(version.metrics), moment(version.created))
        for version in versions
    ]
    print_table(("version", "digest", "reports", "metrics", "made"), rows)


@models.command(epilog=example("shoal models show boston.safetensors"))
@reported
def show(
    file: Annotated[Path, typer.Argument(metavar="FILE.safetensors", help="A model on this machine.")],
    as_json: Json = False,
) -> None:
    """Show which arrays a downloaded model holds."""
    tree = _read(file)
    if as_json:
        for name, array in tree.items():
            print_json({"array": name, "shape": array.shape, "dtype": array.dtype.name, "norm": _norm(array)})
        return
    rows = [(name, tuple(array.shape), array.dtype.name, f"{_norm(array):.6g}") for name, array in tree.items()]
    print_table(("array", "shape", "dtype", "norm"), rows)
    typer.echo(f"{sum(array.size for array in tree.values())} numbers in {len(tree)} arrays")


@models.command(epilog=example(CONNECT, "shoal models download regression-1 --to regression.safetensors"))
@reported
def download(
    named: Named,
    to: Annotated[Path, typer.Option(metavar="FILE.safetensors", help="Where to write it.")],
    url: Url,
    token: Token,
    as_json: Json = False,
) -> None:
    """Write a version of a model to a file, all its arrays included."""
    from shoal.researcher.coordinator import Coordinator

    task, version = _split(named)
    with Coordinator.connect(url, token=token) as coordinator:
        digest = coordinator.run(task).save(to, version)
    if as_json:
        print_json({"path": str(to), "digest": digest})
    else:
        typer.echo(f"wrote {to}, SHA-256 {digest}")


def _split(named: str) -> tuple[str, int | None]:
    task, at, version = named.rpartition("@")
    if not at:
        return named, None
    if not version.isdigit():
        raise typer.BadParameter(f"version {version!r} is no number", param_hint="TASK@VERSION")
    return task, int(version)


def _read(file: Path) -> "Tree":
    from shoal.core.errors import DataError
    from shoal.wire.codec import decode_tree

    try:
        return decode_tree(file.read_bytes())
    except OSError as error:
        raise DataError(f"cannot read {file}: {error.strerror}", "check the path and its permissions") from error


def _norm(array: "Array") -> float:
    import numpy as np

    return float(np.linalg.norm(array.astype(np.float64).ravel()))


def _numbers(metrics: Mapping[str, float]) -> str:
    return ", ".join(f"{name} {value:.6g}" for name, value in metrics.items())

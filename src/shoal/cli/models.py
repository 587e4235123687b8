"""`shoal models list`, `show`, `download` and `compare`."""

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, TypeAlias

import typer

from shoal.cli.ending import reported
from shoal.cli.options import CONNECT, Ca, Json, MaybeToken, MaybeUrl, Token, Url, both, example
from shoal.cli.output import moment, print_json, print_table

if TYPE_CHECKING:
    from shoal.core.tree import Array, Tree
    from shoal.wire.messages import VersionRecord

Named = Annotated[
    str, typer.Argument(metavar="TASK[@VERSION]", help="A task's id or name; by default its newest version.")
]
Model = Annotated[
    str, typer.Argument(metavar="FILE|TASK[@VERSION]", help="A model on this machine, or a version at a coordinator.")
]
Metrics: TypeAlias = Mapping[str, float]

models = typer.Typer(
    help="List, look at, download and compare versions of a model.", no_args_is_help=True, rich_markup_mode=None
)


@models.command("list", epilog=example(CONNECT, "shoal models list regression-1"))
@reported
def list_(
    task: Annotated[str, typer.Argument(help="Id or name of a task.")],
    url: Url,
    token: Token,
    ca: Ca = None,
    as_json: Json = False,
) -> None:
    """List the versions of a task's model."""
    from shoal.researcher.coordinator import Coordinator

    with Coordinator.connect(url, token=token, ca=ca) as coordinator:
        records = coordinator.models(task)
    if as_json:
        for record in records:
            print_json(flat(record))
        return
    print_table(("version", "digest", "parent", "reports", "metrics", "made", "standing", "notes"), map(_row, records))


def _row(record: "VersionRecord") -> tuple[object, ...]:
    version = record.version
    parent = "-" if record.parent is None else record.parent
    numbers, notes = _numbers(version.metrics), "; ".join(note.text for note in record.notes)
    made = moment(version.created)
    return version.number, version.digest[:16], parent, version.reports, numbers, made, record.standing, notes


def flat(record: "VersionRecord") -> dict[str, object]:
    """Return a version's own fields, and beside them what is known about it."""
    from dataclasses import asdict

    known = asdict(record)
    return {**known.pop("version"), "parent_number": known.pop("parent"), **known}


@models.command(epilog=example("shoal models show boston.safetensors", CONNECT, "shoal models show regression-1@3"))
@reported
def show(model: Model, url: MaybeUrl = None, token: MaybeToken = None, ca: Ca = None, as_json: Json = False) -> None:
    """Show which arrays a model holds and, of a version at a coordinator, its lineage, notes and standing."""
    tree, metrics = _model(model, url, token, ca)
    record = None if _is_file(model) else _record(model, url, token, ca)
    if as_json:
        for name, array in tree.items():
            print_json({"array": name, "shape": array.shape, "dtype": array.dtype.name, "norm": _norm(array)})
        if record is not None:
            print_json(flat(record))
        return
    rows = [(name, tuple(array.shape), array.dtype.name, f"{_norm(array):.6g}") for name, array in tree.items()]
    print_table(("array", "shape", "dtype", "norm"), rows)
    typer.echo(f"{sum(array.size for array in tree.values())} numbers in {len(tree)} arrays")
    if metrics:
        typer.echo(f"metrics: {_numbers(metrics)}")
    if record is not None:
        version, standing = record.version, record.standing or "not served"
        made = f"from version {record.parent} in round {record.round}" if record.parent is not None else "published"
        typer.echo(f"version {version.number}, {made}, {moment(version.created)}: {standing}")
        for note in record.notes:
            typer.echo(f"{moment(note.at)} {note.by}: {note.text}")


def _record(named: str, url: str | None, token: str | None, ca: Path | None) -> "VersionRecord":
    from shoal.researcher.coordinator import Coordinator

    url, token = both(url, token)
    task, number = _split(named)
    with Coordinator.connect(url, token=token, ca=ca) as coordinator:
        return coordinator.models(task)[-1 if number is None else number]


@models.command(
    epilog=example(
        CONNECT,
        "shoal models compare regression-1@1 regression-1",
        "shoal models compare regression-1 boston.safetensors",
    )
)
@reported
def compare(
    one: Model, other: Model, url: MaybeUrl = None, token: MaybeToken = None, ca: Ca = None, as_json: Json = False
) -> None:
    """Compare two models: how far apart each array is, and the metrics of both.

    Distances are Euclidean; "relative" is the share of the first one's length.
    """
    first, second = _model(one, url, token, ca), _model(other, url, token, ca)
    distances, metrics = list(_distances(first[0], second[0])), list(_side_by_side(first[1], second[1]))
    if as_json:
        for name, distance, relative in distances:
            print_json({"array": name, "distance": distance, "relative": relative})
        for name, left, right in metrics:
            print_json({"metric": name, "first": left, "second": right})
        return
    print_table(
        ("array", "distance", "relative"),
        [(name, f"{distance:.6g}", f"{relative:.3g}") for name, distance, relative in distances],
    )
    if metrics:
        print_table(("metric", one, other), [(name, _number(left), _number(right)) for name, left, right in metrics])


def _distances(first: "Tree", second: "Tree") -> Iterator[tuple[str, float, float]]:
    from shoal.core.errors import DataError

    layouts = [{name: array.shape for name, array in tree.items()} for tree in (first, second)]
    differing = sorted(name for name, _ in layouts[0].items() ^ layouts[1].items())
    if differing:
        raise DataError(f"the models differ in the arrays {sorted(set(differing))}", "compare versions of one model")
    for name, array in first.items():
        distance, length = _norm(second[name].astype("float64") - array.astype("float64")), _norm(array)
        yield name, distance, distance / length if length else float(distance != 0)


def _side_by_side(first: Metrics, second: Metrics) -> Iterator[tuple[str, float | None, float | None]]:
    for name in dict.fromkeys([*first, *second]):
        yield name, first.get(name), second.get(name)


def _is_file(named: str) -> bool:
    path = Path(named)
    return path.exists() or path.suffix == ".safetensors"


def _model(named: str, url: str | None, token: str | None, ca: Path | None) -> tuple["Tree", Metrics]:
    if _is_file(named):
        return _read(Path(named)), {}
    from shoal.researcher.coordinator import Coordinator

    url, token = both(url, token)
    task, number = _split(named)
    with Coordinator.connect(url, token=token, ca=ca) as coordinator:
        run = coordinator.run(task)
        version = run.version(number)
        return run.params(version), version.metrics


@models.command(epilog=example(CONNECT, "shoal models download regression-1 --to regression.safetensors"))
@reported
def download(
    named: Named,
    to: Annotated[Path, typer.Option(metavar="FILE.safetensors", help="Where to write it.")],
    url: Url,
    token: Token,
    ca: Ca = None,
    as_json: Json = False,
) -> None:
    """Write a version of a model to a file, all its arrays included."""
    from shoal.researcher.coordinator import Coordinator

    task, version = _split(named)
    with Coordinator.connect(url, token=token, ca=ca) as coordinator:
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
    from shoal.core.errors import DataError, RequestError
    from shoal.wire.codec import decode_tree

    try:
        return decode_tree(file.read_bytes())
    except OSError as error:
        raise DataError(f"cannot read {file}: {error.strerror}", "check the path and its permissions") from error
    except RequestError as error:
        raise DataError(f"{file} is no model: {error.problem}", "give a .safetensors file") from error


def _norm(array: "Array") -> float:
    import numpy as np

    return float(np.linalg.norm(array.astype(np.float64).ravel()))


def _numbers(metrics: Mapping[str, float]) -> str:
    return ", ".join(f"{name} {value:.6g}" for name, value in metrics.items())


def _number(value: float | None) -> str:
    return "-" if value is None else f"{value:.6g}"

"""`shoal statistics` and `shoal evaluate`."""

from typing import TYPE_CHECKING, Annotated

import typer

from shoal.cli.ending import reported
from shoal.cli.options import Ca, Json, Token, Url
from shoal.cli.output import print_json, print_table

if TYPE_CHECKING:
    from shoal.algorithms.statistics import ColumnStatistics

Owners = Annotated[int, typer.Option(min=1, help="How many owners take part.")]
Within = Annotated[float, typer.Option(min=1, help="Seconds to wait for a pass.")]


@reported
def statistics(
    columns: Annotated[list[str], typer.Argument(metavar="COLUMN...", help="Names of columns in the owners' rows.")],
    url: Url,
    token: Token,
    owners: Owners,
    bins: Annotated[int | None, typer.Option(min=1, max=4096, help="Also count in so many bins.")] = None,
    quantile: Annotated[
        list[float] | None, typer.Option(metavar="SHARE", help="Also a quantile, such as 0.5; may be repeated.")
    ] = None,
    tolerance: Annotated[float, typer.Option(help="Share of a column's range that a quantile may be off.")] = 1e-3,
    deadline: Within = 600.0,
    ca: Ca = None,
    as_json: Json = False,
) -> None:
    """Measure columns over the rows of all owners, none of which leaves its owner."""
    from shoal.researcher.coordinator import Coordinator

    wanted = tuple(quantile or ())
    with Coordinator.connect(url, token=token, ca=ca) as coordinator:
        found = coordinator.statistics(
            columns, goal=owners, deadline=deadline, histogram=bins, quantiles=wanted, tolerance=tolerance
        )
    if as_json:
        for number in range(len(columns)):
            print_json(_column(found, number, wanted))
        return
    heads = ("column", "count", "mean", "deviation", "minimum", "maximum", *(f"q{share:g}" for share in wanted))
    print_table(heads, [_row(found, number) for number in range(len(columns))])
    for number, counts in enumerate(found.counts):
        low, high = found.edges[number, [0, -1]]
        numbers = " ".join(f"{count:.0f}" for count in counts)
        typer.echo(f"{columns[number]}: {numbers} in bins from {low:.6g} to {high:.6g}")


def _row(found: "ColumnStatistics", number: int) -> list[str]:
    numbers = [part[number] for part in (found.mean, found.deviation, found.minimum, found.maximum)]
    shares = found.quantiles[number].tolist() if found.quantiles.size else []
    return [found.columns[number], f"{found.count[number]:.0f}", *(f"{value:.6g}" for value in (*numbers, *shares))]


def _column(found: "ColumnStatistics", number: int, wanted: tuple[float, ...]) -> dict[str, object]:
    shares = found.quantiles[number].tolist() if wanted else []
    binned = bool(found.counts.size)
    return {
        "column": found.columns[number],
        "count": int(found.count[number]),
        "mean": float(found.mean[number]),
        "deviation": float(found.deviation[number]),
        "minimum": float(found.minimum[number]),
        "maximum": float(found.maximum[number]),
        "variance": float(found.variance[number]),
        "quantiles": {f"{share:g}": value for share, value in zip(wanted, shares, strict=True)},
        "edges": found.edges[number].tolist() if binned else [],
        "counts": [int(count) for count in found.counts[number]] if binned else [],
    }


@reported
def evaluate(
    version: Annotated[str, typer.Argument(metavar="TASK[@VERSION]", help="By default its newest version.")],
    url: Url,
    token: Token,
    owners: Owners,
    metric: Annotated[list[str] | None, typer.Option(help="What to measure; may be repeated. [default: loss]")] = None,
    deadline: Within = 600.0,
    ca: Ca = None,
    as_json: Json = False,
) -> None:
    """Measure a version on the rows that owners hold out; no update travels."""
    from shoal.researcher.coordinator import Coordinator

    with Coordinator.connect(url, token=token, ca=ca) as coordinator:
        found = coordinator.evaluate(version, goal=owners, metrics=tuple(metric or ("loss",)), deadline=deadline)
    if as_json:
        print_json(found)
        return
    print_table(("metric", "mean"), [(name, f"{value:.6g}") for name, value in found.metrics.items()])
    typer.echo(f"over {found.rows} rows that {found.owners} owners hold out")

"""`shoal tasks rounds`, `pause`, `resume` and `extend`."""

from collections.abc import Mapping
from typing import TYPE_CHECKING, Annotated

import typer

from shoal.cli.ending import reported
from shoal.cli.options import Ca, Json, Token, Url
from shoal.cli.output import print_json, print_table

if TYPE_CHECKING:
    from shoal.rounds.record import RoundRecord
    from shoal.wire.messages import TaskStatus

Named = Annotated[str, typer.Argument(metavar="TASK", help="Id or name of a task.")]


@reported
def rounds(task: Named, url: Url, token: Token, ca: Ca = None, as_json: Json = False) -> None:
    """Show every round: who was selected, reported, dropped, late or refused and why, bytes and seconds.

    Seconds are those until all places were taken, from then to the close, and until the version was durable.
    """
    from shoal.researcher.coordinator import Coordinator

    with Coordinator.connect(url, token=token, ca=ca) as coordinator:
        found = coordinator.rounds(task)
    if as_json:
        for record in found:
            print_json(record)
        return
    columns = ("round", "outcome", "selected", "reported", "late", "dropped", "refused", "bytes", "seconds")
    print_table(columns, map(_row, found))


def _row(record: "RoundRecord") -> tuple[object, ...]:
    number = f"{record.round}" if record.attempt == 1 else f"{record.round} (attempt {record.attempt})"
    reported = f"{record.reported} ({record.carried} carried)" if record.carried else record.reported
    return (
        number,
        f"{record.outcome}: {record.reason}" if record.reason else record.outcome,
        f"{record.selected} of {record.places}",
        reported,
        record.late,
        _counts(record.dropped),
        _counts(record.refused),
        record.update_bytes,
        f"{record.selecting:.1f} + {record.collecting:.1f} + {record.committing:.1f}",
    )


def _counts(counts: Mapping[str, int]) -> str:
    ordered = sorted(counts.items(), key=lambda item: (-item[1], item[0]))
    return "; ".join(f"{times} {reason}" for reason, times in ordered) or "0"


@reported
def pause(task: Named, url: Url, token: Token, ca: Ca = None, as_json: Json = False) -> None:
    """Hand out no more work of a task. What is under way may still be reported."""
    from shoal.researcher.coordinator import Coordinator

    with Coordinator.connect(url, token=token, ca=ca) as coordinator:
        _show(coordinator.pause(task), as_json=as_json)


@reported
def resume(task: Named, url: Url, token: Token, ca: Ca = None, as_json: Json = False) -> None:
    """Let a paused task go on, as if no time had passed."""
    from shoal.researcher.coordinator import Coordinator

    with Coordinator.connect(url, token=token, ca=ca) as coordinator:
        _show(coordinator.resume(task), as_json=as_json)


@reported
def extend(
    task: Named,
    url: Url,
    token: Token,
    to: Annotated[int, typer.Option(min=1, help="Rounds that the task is to have altogether.")],
    ca: Ca = None,
    as_json: Json = False,
) -> None:
    """Let a task have more rounds, also after it finished."""
    from shoal.researcher.coordinator import Coordinator

    with Coordinator.connect(url, token=token, ca=ca) as coordinator:
        _show(coordinator.extend(task, to), as_json=as_json)


def _show(status: "TaskStatus", *, as_json: bool) -> None:
    if as_json:
        print_json(status)
    else:
        typer.echo(f"{status.id} {status.phase}: version {status.latest.number} of {status.rounds}")

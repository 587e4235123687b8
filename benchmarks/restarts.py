"""How long a coordinator takes from its start until it serves, with much in its home.

The home has `--restart-tasks` tasks with rounds of ten devices, together `--restart-events` events, and the snapshots
that a coordinator would have made on the way. `restart_cpu_s` is the processor time of a real `shoal server`, user and
system, from its start until its first answer to /healthz, which it gives when every task is loaded; in the mean of some
starts, each ended by SIGKILL. `restart_s` is the same by the clock. `restart_empty_cpu_s` is that of a home without
tasks: mostly the interpreter and what it imports.
"""

import tempfile
import time
from collections.abc import Iterator, Mapping
from pathlib import Path

import numpy as np
from processes import cpu_seconds

from shoal.core.task import ArraySpec, Bounds, RoundPlan, TaskSpec
from shoal.core.tree import encode as encode_tree
from shoal.rounds.effects import Assign, Fold
from shoal.rounds.events import CheckedIn, Committed, Event, Published, Recorded, Reported
from shoal.rounds.state import TaskState
from shoal.server.home import BLOBS, DATABASE
from shoal.server.running import SNAPSHOT_EVERY
from shoal.store.blobs import FolderBlobs
from shoal.store.events import encode_state
from shoal.store.sql import SqlStore
from shoal.testing.server_process import ServerProcess

DEVICES = 10
HOUR = 3600.0


def figures(tasks: int, events: int, starts: int) -> Mapping[str, float]:
    """Measure both homes."""
    with tempfile.TemporaryDirectory() as folder:
        empty, full = Path(folder) / "empty", Path(folder) / "full"
        written = fill(full, tasks, events)
        seconds, spent = started(full, Path(folder) / "log", starts)
        return {
            "restart_cpu_s": spent,
            "restart_s": seconds,
            "restart_events": written,
            "restart_empty_cpu_s": started(empty, Path(folder) / "log", starts)[1],
        }


def started(home: Path, log: Path, starts: int) -> tuple[float, float]:
    """Return the mean seconds, by the clock and of the processor, until a server of a home serves."""
    walls, spent = list[float](), list[float]()
    with ServerProcess(home, log) as server:
        for _ in range(starts):
            wall = server.start()
            if wall is None:
                raise SystemExit(log.read_text())
            walls.append(wall)
            spent.append(cpu_seconds(server.pid))
    return sum(walls) / starts, sum(spent) / starts


def fill(home: Path, tasks: int, events: int) -> int:
    """Write a home as a coordinator would have; return how many events it has."""
    home.mkdir(mode=0o700)
    store, blobs = SqlStore(home / DATABASE), FolderBlobs(home / BLOBS)
    writer = blobs.writer("published")
    writer.write(encode_tree({"w": np.zeros(1, np.float32)}))
    initial = writer.commit()
    written = sum(_write(store, f"task{number}", initial, events // tasks) for number in range(tasks))
    store.close()
    return written


def _write(store: SqlStore, name: str, initial: str, most: int) -> int:
    plan = RoundPlan(DEVICES, deadline=HOUR, lease=HOUR)
    spec = TaskSpec(name, {"w": ArraySpec((1,), "float32")}, most, plan, bounds=Bounds(), initial=initial)
    now = time.time()
    published = Published(f"{name}-1", spec)
    state = TaskState.begin(published, now)
    records = [Recorded(now, published)]
    for event in _rounds(state, initial, now):
        if len(records) >= most:
            break
        records.append(Recorded(now, event))
        if len(records) % SNAPSHOT_EVERY == 0:
            snapshot = len(records), encode_state(state)
    stream, epoch = published.task, store.lead(published.task)
    for start in range(0, len(records), SNAPSHOT_EVERY):
        store.append(stream, records[start : start + SNAPSHOT_EVERY], expect=start, epoch=epoch)
    if len(records) >= SNAPSHOT_EVERY:
        store.save_snapshot(stream, *snapshot)
    return len(records)


def _rounds(state: TaskState, digest: str, now: float) -> Iterator[Event]:
    """Let rounds pass, and yield each event that changed the state."""
    while True:
        given = list[Assign]()
        for number in range(DEVICES):
            event: Event = CheckedIn(f"device{number}")
            [effect] = state.handle(event, now)
            assert isinstance(effect, Assign)
            given.append(effect)
            yield event
        for one in given:
            event = Reported(one.assignment.id, one.assignment.device, f"{one.assignment.id:0<64}", 4, 1 << 16)
            effects = state.handle(event, now)
            yield event
        fold = next(effect for effect in effects if isinstance(effect, Fold))
        event = Committed(fold.round, fold.attempt, digest, "")
        state.handle(event, now)
        yield event

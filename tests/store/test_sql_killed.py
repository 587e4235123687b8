"""What was acknowledged outlives a process that is killed while it writes."""

import subprocess
import sys

import pytest

from shoal.store.sql import SqlStore
from tests.store import append_for_ever


@pytest.mark.processes
@pytest.mark.parametrize("acknowledged", [1, 40, 333])
def test_acknowledged_appends_outlive_a_kill(tmp_path, acknowledged):
    path = tmp_path / "shoal.db"
    command = [sys.executable, append_for_ever.__file__, str(path)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        told = [int(process.stdout.readline()) for _ in range(acknowledged)]
        process.kill()
        told += [int(line) for line in process.stdout.read().splitlines(keepends=True) if line.endswith("\n")]
    assert process.returncode == -9
    assert told == list(range(1, len(told) + 1))
    store = SqlStore(path)
    kept = list(store.events("task"))
    assert len(kept) >= len(told)
    for position, record in kept:
        sent = append_for_ever.entry(position - 1, 1)
        assert [record] == sent.events
        assert {record.event.digest: store.inline(record.event.digest)} == sent.inline
    after = append_for_ever.entry(len(kept), store.lead("task"))
    assert store.submit(after).result(30) == len(kept) + 1
    store.close()

"""Files at rest: sealed piece by piece, read from any place, and whatever was changed in them is noticed."""

import json
from pathlib import Path

import httpx
import numpy as np
import pytest

from shoal.agent.sealed import Seal
from shoal.agent.sealed_file import OVERHEAD, PIECE, opened, sealed
from shoal.core.errors import Unreachable, WrongKey
from shoal.wire.codec import decode_tree, head_length
from tests.agent.devices import offset_task, open_device, user_data
from tests.agent.federation import Faulty, Federation

KEY = bytes(range(32))


def stored(path: Path, data: bytes, key: bytes | None = KEY, cut: int = 100_003) -> Path:
    pieces = [data[start : start + cut] for start in range(0, len(data), cut)]
    path.write_bytes(b"".join(sealed(pieces, Seal(key), "a1")))
    return path


@pytest.mark.parametrize("size", [0, 1, PIECE - 1, PIECE, PIECE + 1, 2 * PIECE, 2 * PIECE + 777])
@pytest.mark.parametrize("key", [None, KEY])
def test_every_part_reads_back(tmp_path: Path, size: int, key: bytes | None):
    data = np.random.default_rng(size).bytes(size)
    path = stored(tmp_path / "f", data, key)
    source = opened(path, Seal(key), "a1")
    assert source.size == size
    with source.open() as file:
        assert b"".join(iter(lambda: file.read(70_000), b"")) == data
        for start in (0, size // 2, max(0, size - 3), max(0, min(size, PIECE) - 2)):
            assert file.seek(start) == start
            assert data[start : start + 5].startswith(file.read(5))
    if key is not None and size > 64:
        assert data[:32] not in path.read_bytes()


@pytest.mark.parametrize("damage", ["cut", "exchanged", "changed", "renamed", "key"])
def test_what_was_changed_is_noticed(tmp_path: Path, damage: str):
    path = stored(tmp_path / "f", bytes(3 * PIECE))
    data, whole = path.read_bytes(), PIECE + OVERHEAD
    changed = {
        "cut": data[: 2 * whole],
        "exchanged": data[whole : 2 * whole] + data[:whole] + data[2 * whole :],
        "changed": data[:-1] + bytes([data[-1] ^ 1]),
    }
    path.write_bytes(changed.get(damage, data))
    source = opened(path, Seal(bytes(32) if damage == "key" else KEY), "a2" if damage == "renamed" else "a1")
    with source.open() as file, pytest.raises(WrongKey):
        list(iter(lambda: file.read(PIECE), b""))


@pytest.mark.slow
def test_an_update_that_waits_is_sealed_and_sent_after_a_restart(federation: Federation):
    run = federation.researcher.publish(offset_task(), rounds=1, goal=1, plan=False)
    transport = federation.transport
    federation.transport = Faulty(transport, "/report", [httpx.ReadError("gone")], after=False)  # type: ignore[assignment]
    with open_device(federation, "ann", key=KEY) as device:
        device.observe(*user_data("ann"))
        with pytest.raises(Unreachable):
            device.sync()
        [assignment] = device._home.reports()
        with device._home.report(assignment).open() as file:
            body = file.read(1 << 20)
        length = head_length(body)
        delta = decode_tree(body[4 + length :])["delta/a"].tobytes()
        assert json.loads(body[4 : 4 + length])["size"] == len(body) - 4 - length
        kept = [path for path in device._home.path.rglob("*") if path.is_file()]
    assert not [path for path in kept if delta in path.read_bytes() or b'"metrics"' in path.read_bytes()]
    federation.transport = transport
    with open_device(federation, "ann", key=KEY) as device:
        assert device.sync()
        assert device.status().pending == 0
        version = next(iter(run.follow()))
        device._refresh()
        kept = [path for path in device._home.path.rglob("*") if path.is_file()]
        numbers = run.params(version)["a"].tobytes()
        assert not [path for path in kept if numbers in path.read_bytes()]

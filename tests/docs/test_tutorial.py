"""The page tutorial.md, followed as a reader would, against real processes."""

import re
from pathlib import Path

import pytest

from tests.docs.following import follow, free_port, write_files
from tests.docs.terminals import Terminals

PAGE = "tutorial.md"


@pytest.mark.processes
@pytest.mark.slow
def test_the_tutorial(tmp_path: Path):
    folder = tmp_path / "work"
    write_files(PAGE, folder)
    with Terminals({"8080": free_port()}) as terminals:
        seen = follow(PAGE, terminals, {"first": folder})
    simulated, published, kept = seen["researcher"]
    found = re.search(r"test_accuracy\s+([\d.]+)", simulated)
    assert found is not None, simulated
    assert float(found[1]) > 0.5
    assert "numbers-1" in published
    found = re.search(r"version 10: (\d+)% of digits", seen["phone"][0])
    assert found is not None, seen["phone"]
    assert int(found[1]) > 80
    assert "committed" in kept
    assert (folder / "numbers.safetensors").exists()
    released = (folder / "phone" / "releases.jsonl").read_text()
    assert released.count('"kind":"update"') == 10

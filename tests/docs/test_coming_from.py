"""Our side of the pages for those who come from elsewhere does what it says."""

import re
from pathlib import Path

import pytest

from tests.docs.following import follow, write_files
from tests.docs.pages import blocks
from tests.docs.terminals import Terminals


@pytest.mark.processes
def test_from_pysyft(tmp_path: Path):
    # in a process of its own, as a reader runs it: torch counts its devices when autograd first runs
    (block,) = [block for block in blocks("from-pysyft.md") if "run" in block.marks]
    (tmp_path / "loop.py").write_text(block.text)
    with Terminals({}) as terminals:
        printed = terminals.type("researcher", "python loop.py", tmp_path)
    answers = [float(number) for number in re.findall(r"-?\d+\.", printed)]
    assert answers == [0, 0, 1, 1]  # the first column is the answer


@pytest.mark.processes
def test_from_flower(tmp_path: Path):
    folder = tmp_path / "work"
    write_files("from-flower.md", folder)
    with Terminals({}) as terminals:
        (printed,) = follow("from-flower.md", terminals, {"first": folder})["researcher"]
    assert "test_accuracy" in printed

"""The example runs with fewer others, and shows what it says."""

import importlib.util
from pathlib import Path

import pytest

EXAMPLE = Path(__file__).parents[2] / "examples" / "device_gets_better.py"


@pytest.mark.processes
def test_each_stage_is_better_than_the_one_before(tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    spec = importlib.util.spec_from_file_location("device_gets_better", EXAMPLE)
    example = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(example)
    errors = example.main(others=5, plot=str(tmp_path / "better.png"))
    before, alone, together = errors.values()
    assert before > 2 * alone
    assert alone > 1.1 * together
    table = capsys.readouterr().out.splitlines()
    assert [line.split("  ")[0] for line in table] == list(errors)
    assert (tmp_path / "better.png").read_bytes().startswith(b"\x89PNG")

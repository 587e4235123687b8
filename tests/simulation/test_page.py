"""The program on the page runs."""

import re
from pathlib import Path

import pytest

PAGE = Path(__file__).parents[2] / "docs" / "simulation.md"


@pytest.mark.slow
def test_the_program_on_the_page_runs():
    (program,) = re.findall(r"```python\n(.*?)```", PAGE.read_text(), re.DOTALL)
    names: dict[str, object] = {}
    exec(compile(program, str(PAGE), "exec"), names)
    assert names["run"].history[-1].loss < names["run"].history[0].loss / 4  # type: ignore[attr-defined]

"""The programs on the page run, one after the other."""

import re
from pathlib import Path

import pytest

PAGE = Path(__file__).parents[2] / "docs" / "simulation.md"


@pytest.mark.slow
def test_the_programs_on_the_page_run():
    names: dict[str, object] = {}
    programs = re.findall(r"```python\n(.*?)```", PAGE.read_text(), re.DOTALL)
    assert len(programs) == 2
    for program in programs:
        exec(compile(program, str(PAGE), "exec"), names)
        assert names["run"].history[-1].loss < names["run"].history[0].loss / 4  # type: ignore[attr-defined]

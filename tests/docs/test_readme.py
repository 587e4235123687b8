"""The README promises nothing that a longer page, which a test follows, does not do."""

import re
import subprocess
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
README = (ROOT / "README.md").read_text()


def lines(language: str) -> list[str]:
    found = re.findall(rf"```{language}\n(.*?)```", README, re.DOTALL)
    return [line for block in found for line in block.splitlines() if line.strip()]


def test_every_shell_command_is_run_by_the_tests_of_the_longer_pages() -> None:
    pages = [(ROOT / "docs" / name).read_text().splitlines() for name in ("by-hand.md", "remote.md")]
    followed = {line for page in pages for line in page}
    commands = [line for line in lines("sh") if not line.startswith("make ")]
    assert commands
    assert [line for line in commands if line not in followed] == []


def test_every_line_of_python_is_run_by_the_tests_of_the_longer_pages() -> None:
    pages = [(ROOT / "docs" / name).read_text().splitlines() for name in ("by-hand.md", "python.md")]
    followed = {line for page in pages for line in page}
    assert [line for line in lines("python") if line not in followed] == []


@pytest.mark.parametrize(
    "command", [line.partition("#")[0].split() for line in lines("sh") if line.startswith("make ")]
)
def test_every_make_target_is_there(command: list[str]) -> None:
    done = subprocess.run([*command, "--dry-run"], cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr


def test_every_page_that_is_linked_is_there() -> None:
    linked = re.findall(r"\]\(([^)#]+)\)", README)
    assert [page for page in linked if not page.startswith("http") and not (ROOT / page).exists()] == []

"""docs/errors.md lists every error, with its status, and shows what it really looks like."""

import re
from pathlib import Path

import pytest

from shoal.cli.ending import described
from shoal.core import errors
from shoal.core.errors import ShoalError, every_error
from tests.error_examples import DATABASES, EXAMPLES, raised

ROOT = Path(__file__).parents[1]
PAGE = ROOT / "docs" / "errors.md"
HOME = "/home/bob"

SECTION = re.compile(
    r"^### (?P<code>\w+)\n\n`(?P<name>\w+)`, status (?P<status>\d{3})(?:, a kind of \[`(?P<base>\w+)`\])?(?P<text>.*?)"
    r"(?=^### |\Z)",
    re.MULTILINE | re.DOTALL,
)
BLOCK = re.compile(r"```text\n(.*?)\n```", re.DOTALL)

OURS = {kind.code: kind for kind in every_error() if kind.__module__ == errors.__name__}
SECTIONS = {found["code"]: found for found in SECTION.finditer(PAGE.read_text())}


def shown(error: ShoalError, folder: Path) -> str:
    """Return an error as a terminal shows it, with a home that is the same on every machine."""
    return described(error).replace(str(folder), HOME)


def base(kind: type[ShoalError]) -> str | None:
    [parent] = kind.__bases__
    return None if parent in (Exception, ShoalError) else parent.code


def test_every_error_is_on_the_page_and_no_other() -> None:
    on_page = {code: (found["name"], int(found["status"]), found["base"]) for code, found in SECTIONS.items()}
    assert on_page == {code: (kind.__name__, kind.status, base(kind)) for code, kind in OURS.items()}
    assert len(SECTIONS) == len(re.findall(r"^### ", PAGE.read_text(), re.MULTILINE))


def test_every_section_says_when_and_what_to_do() -> None:
    for code, found in SECTIONS.items():
        said, _, way = found["text"].partition("*Way out:* ")
        assert len(said) > 60, code
        assert len(way) > 10, code


def test_every_error_that_is_ever_raised_is_shown() -> None:
    source = "\n".join(path.read_text() for path in (ROOT / "src").rglob("*.py"))
    used = {code for code, kind in OURS.items() if re.search(rf"(?<!class )\b{kind.__name__}\(", source)}
    assert EXAMPLES.keys() == {code for code, found in SECTIONS.items() if BLOCK.search(found["text"])}
    assert used <= EXAMPLES.keys()


@pytest.mark.parametrize(
    "code",
    [pytest.param(code, marks=pytest.mark.processes) if code in DATABASES else code for code in EXAMPLES],
)
def test_what_the_page_shows_is_what_happens(code: str, tmp_path: Path) -> None:
    error = raised(code, tmp_path)
    assert isinstance(error, OURS[code])
    assert type(error).code == code
    block = BLOCK.search(SECTIONS[code]["text"])
    assert block is not None
    assert block[1] == shown(error, tmp_path)


def test_links_lead_to_sections() -> None:
    links = re.findall(r"\[`(\w+)`\]\(#(\w+)\)", PAGE.read_text())
    assert len(links) > 30
    assert all(text == target and target in SECTIONS for text, target in links)

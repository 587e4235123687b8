"""Reading what a page tells its reader to do: fenced blocks, each under a comment that says where it goes."""

import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

FOLDER = Path(__file__).parents[2] / "docs"
BLOCK = re.compile(
    r"<!-- (?P<marks>[^>]*?) -->\n```(?P<language>\w+)(?: title=\"[^\"]*\")?\n(?P<text>.*?)```", re.DOTALL
)


@dataclass(frozen=True, slots=True)
class Block:
    """One block: its text, and what the comment above it says."""

    marks: dict[str, str]
    text: str


def blocks(page: str) -> list[Block]:
    """Every block of a page. A block of a shell or of Python without a comment is an error: it would not be run."""
    text = (FOLDER / page).read_text()
    found = [Block(_marks(match["marks"]), match["text"]) for match in BLOCK.finditer(text)]
    fences = re.findall(r"^```(?:sh|python)(?: title=.*)?$", text, re.MULTILINE)
    assert len(found) == len(fences), f"{page}: {len(fences)} blocks, {len(found)} say where they go"
    return found


def _marks(text: str) -> dict[str, str]:
    return dict(_pairs(text))


def _pairs(text: str) -> Iterator[tuple[str, str]]:
    for mark in text.split(","):
        name, _, value = mark.partition(":")
        yield name.strip(), value.strip()

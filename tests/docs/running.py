"""Executing the Python of a page, one block after the other, as one program."""

from pathlib import Path
from typing import Any

from tests.docs.pages import blocks


def run(page: str, mark: str = "run") -> dict[str, Any]:
    """Execute the marked blocks of a page and return the names they made."""
    names: dict[str, Any] = {"__name__": Path(page).stem}
    for number, block in enumerate(blocks(page)):
        if mark in block.marks:
            exec(compile(block.text, f"{page}, block {number + 1}", "exec"), names)
    return names

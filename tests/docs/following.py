"""Doing what a page says, step by step: its files first, then every block in the terminal that it names."""

import re
import socket
from pathlib import Path

from tests.docs.pages import Block, blocks
from tests.docs.terminals import Terminals


def free_port() -> str:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        return str(listener.getsockname()[1])


def write_files(page: str, folder: Path) -> None:
    folder.mkdir()
    for block in blocks(page):
        if "file" in block.marks:
            (folder / block.marks["file"]).write_text(block.text)


def steps(page: str, part: str = "one") -> list[Block]:
    return [block for block in blocks(page) if "terminal" in block.marks and block.marks.get("part", "one") == part]


def learn_tokens(terminals: Terminals, printed: str) -> None:
    for word, name in (("ADMIN-TOKEN", "admin token"), ("ENROLMENT-TOKEN", "enrolment token")):
        found = re.search(rf"{name}:\s+(\S+)", printed)
        assert found is not None, printed
        terminals.words[word] = found[1]


def follow(page: str, terminals: Terminals, machines: dict[str, Path], part: str = "one") -> dict[str, list[str]]:
    """Do every step of a part; return what each terminal saw."""
    seen: dict[str, list[str]] = {}
    for block in steps(page, part):
        terminal = block.marks["terminal"]
        printed = terminals.type(terminal, block.text, machines[block.marks.get("machine", "first")])
        if terminal == "coordinator" and "admin token" in printed:
            learn_tokens(terminals, printed)
        seen.setdefault(terminal, []).append(printed)
    return seen

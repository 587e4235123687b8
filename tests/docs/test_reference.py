"""Nothing public is undocumented: commands and options say what they do, public names stand in the reference."""

import importlib.util
import inspect
import re
from collections import Counter
from collections.abc import Iterator
from importlib import import_module
from pathlib import Path
from types import ModuleType

import click
import pytest

import shoal
import shoal.data
import shoal.plan
import shoal.testing.laws
import shoal.tracking

DOCS = Path(__file__).parents[2] / "docs"
SPEC = importlib.util.spec_from_file_location("site_pages", DOCS / "site_pages.py")
assert SPEC is not None
assert SPEC.loader is not None
site_pages = importlib.util.module_from_spec(SPEC)
SPEC.loader.exec_module(site_pages)

COMMANDS = list(site_pages.commands())


@pytest.mark.parametrize(("command", "context"), COMMANDS, ids=[context.command_path for _, context in COMMANDS])
def test_a_command_says_what_it_does(command: click.Command, context: click.Context):
    said = "\n".join(site_pages.section(command, context))
    assert (command.help or "").strip(), f"{context.command_path} has no help"
    for option in (option for option in command.params if not getattr(option, "hidden", False)):
        assert (getattr(option, "help", None) or "").strip(), f"{context.command_path}: {option.name} has no help"
        shown = max(option.opts, key=len) if option.param_type_name == "option" else (option.metavar or option.name)
        assert shown in said


def test_the_page_of_commands_has_them_all():
    page = site_pages.command_line()
    assert [path for _, context in COMMANDS if f"## {(path := context.command_path)}\n" not in page] == []
    assert len(COMMANDS) > 40


def documented() -> Iterator[str]:
    for page in (DOCS / "reference").glob("*.md"):
        yield from re.findall(r"^::: (\S+)$", page.read_text(), re.MULTILINE)


def public() -> Iterator[str]:
    yield from (f"shoal.{name}" for name in shoal.__all__ if not isinstance(getattr(shoal, name), ModuleType))
    for module in (shoal.data, shoal.plan, shoal.tracking, shoal.testing.laws):
        for name in stated(module):
            if callable(getattr(module, name)):
                yield f"{module.__name__}.{name}"


def stated(module: ModuleType) -> Iterator[str]:
    """The names that a module offers: those that it defines, and those that it imports as themselves."""
    assert module.__file__ is not None
    text = Path(module.__file__).read_text()
    yield from re.findall(r"^from \S+ import (\w+) as \1$", text, re.MULTILINE)
    yield from re.findall(r"^(?:def|class) ([a-z]\w*)", text, re.MULTILINE)


def test_every_public_name_is_in_the_reference_once():
    found = Counter(documented())
    asked = {name for name in public() if not name.endswith(("AggregatorLaw", "EVERY_LAW"))}
    assert sorted(asked - found.keys()) == [], "give each a line `::: NAME` on a page of docs/reference"
    assert [name for name, times in found.items() if times > 1] == []
    assert len(asked) > 80


def test_every_documented_name_is_there_and_says_what_it_is():
    for name in documented():
        module, _, attribute = name.rpartition(".")
        said = inspect.getdoc(getattr(import_module(module), attribute)) or ""
        assert said.split("\n")[0].strip(), f"{name} has no docstring"

"""Asking for help is cheap, and every example in it is something that parses."""

import re
import shlex
import subprocess
import sys
from collections.abc import Iterator

import pytest
import typer

from shoal.cli.main import app

HEAVY = ("numpy", "torch", "httpx", "rich", "fastapi", "sqlalchemy", "cryptography", "msgspec")

COMMANDS = [
    ("demo",),
    ("server",),
    ("agent",),
    ("agent", "receipts"),
    ("publish",),
    ("tasks",),
    ("watch",),
    ("top",),
    ("doctor",),
    ("devices",),
    ("statistics",),
    ("evaluate",),
    ("simulate",),
    ("strategies",),
    ("models", "list"),
    ("models", "show"),
    ("models", "download"),
    ("models", "compare"),
    ("tasks", "show"),
    ("tasks", "cancel"),
    ("tasks", "rounds"),
    ("tasks", "pause"),
    ("tasks", "resume"),
    ("tasks", "extend"),
    ("server", "backup"),
    ("server", "restore"),
    ("server", "migrate"),
    ("models", "heads"),
    ("models", "promote"),
    ("models", "rollback"),
    ("models", "rewind"),
    ("models", "note"),
    ("models", "pin"),
    ("models", "unpin"),
    ("tokens",),
    ("tokens", "create"),
    ("tokens", "revoke"),
    ("worker",),
    ("requests", "list"),
    ("requests", "show"),
    ("requests", "approve"),
    ("requests", "refuse"),
    ("audit", "verify"),
    ("audit", "show"),
    ("devices", "approve"),
    ("devices", "refuse"),
    ("devices", "revoke"),
]


def help_of(*command: str) -> str:
    done = subprocess.run(
        [sys.executable, "-m", "shoal", *command, "--help"], capture_output=True, text=True, check=True, timeout=60
    )
    return done.stdout


@pytest.mark.processes
@pytest.mark.parametrize("command", [(), ("demo",), ("agent",)])
def test_help_imports_nothing_heavy(command):
    script = (
        "import sys; from shoal.cli.main import app; sys.argv = ['shoal', *sys.argv[1:]]\n"
        "try: app()\n"
        f"finally: print('IMPORTED', [name for name in {HEAVY} if name in sys.modules])"
    )
    done = subprocess.run(
        [sys.executable, "-c", script, *command, "--help"], capture_output=True, text=True, check=True, timeout=60
    )
    assert "Usage: shoal" in done.stdout
    assert done.stdout.splitlines()[-1] == "IMPORTED []"


def test_every_command_is_listed():
    assert set(commands(typer.main.get_command(app))) == set(COMMANDS)


def commands(group, path: tuple[str, ...] = ()) -> Iterator[tuple[str, ...]]:
    """Every command that does something: groups are listed when they do without a subcommand."""
    for name, command in group.commands.items():
        here = (*path, name)
        if hasattr(command, "commands"):
            yield from commands(command, here)
        if getattr(command, "invoke_without_command", True):
            yield here


def examples(text: str) -> Iterator[list[str]]:
    after = text.split("Example:")[1]
    for line in after.splitlines():
        words = shlex.split(line)
        if words[:1] == ["shoal"]:
            yield words[1:]


@pytest.mark.processes
@pytest.mark.parametrize("command", COMMANDS, ids=" ".join)
def test_example_parses(command, monkeypatch):
    text = help_of(*command)
    exported = dict(re.findall(r"(SHOAL_[A-Z]+)=(\S+)", text.split("Example:")[1]))
    for name, value in exported.items():
        monkeypatch.setenv(name, value)
    found = list(examples(text))
    assert found
    for words in found:
        assert tuple(words[: len(command)]) == command
        parses(typer.main.get_command(app), words)


def parses(command, words: list[str], parent=None) -> None:
    """Do what the command line does up to the call of the function."""
    name = "shoal" if parent is None else words[0]
    made = command.make_context(name, list(words if parent is None else words[1:]), parent=parent)
    if hasattr(command, "commands"):
        rest = [*made._protected_args, *made.args]
        if not rest and command.invoke_without_command:
            return
        parses(command.commands[rest[0]], rest, made)


def test_parses_notices_an_unknown_option():
    with pytest.raises(Exception, match="No such option"):
        parses(typer.main.get_command(app), ["demo", "--round", "3"])


@pytest.mark.processes
@pytest.mark.parametrize("command", COMMANDS, ids=" ".join)
def test_every_command_prints_json(command):
    assert "--json" in help_of(*command)


def test_help_fits_a_narrow_terminal():
    assert max(len(line) for line in help_of("demo").splitlines()) <= 80

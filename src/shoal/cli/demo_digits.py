"""`shoal demo --digits`: what of it is the command line's."""

import html
import os
import sys
import webbrowser
from pathlib import Path
from typing import TYPE_CHECKING

import typer

if TYPE_CHECKING:
    from shoal.demo.digits.run import Settings
    from shoal.demo.digits.screen import Opened, PlainScreen

OTHERS = ("rounds", "shuffle", "lr", "batch_size", "local_epochs", "data", "target")
"""Options of the demo that is not about digits."""

DIGITS = ("port", "every", "web_runtime", "open_page")
"""Options of this one only."""


def check_options(invoked: typer.Context, digits: bool) -> None:
    """Raise BadParameter for an option of the demo that was not asked for."""
    for name in OTHERS if digits else DIGITS:
        source = invoked.get_parameter_source(name)
        if source is not None and source.name == "COMMANDLINE":
            option = {"open_page": "--open"}.get(name, f"--{name.replace('_', '-')}")
            raise typer.BadParameter(
                "does not go with --digits" if digits else "needs --digits", ctx=invoked, param_hint=option
            )


def demo_digits(settings: "Settings", folder: Path, open_page: bool, as_json: bool) -> None:
    """Run the demo until it is interrupted, with its files in `folder`."""
    from shoal.demo.digits.run import run
    from shoal.demo.digits.screen import JsonScreen

    run(settings, folder, JsonScreen(sys.stdout, sys.stderr) if as_json else _terminal(folder, open_page))


def _terminal(folder: Path, open_page: bool) -> "PlainScreen":
    from shoal.demo.digits.screen import PlainScreen

    class Terminal(PlainScreen):
        def opened(self, opened: "Opened") -> None:
            super().opened(opened)
            if open_page and _has_desktop():
                _open(opened.page, folder)

    return Terminal(sys.stdout)


def _has_desktop() -> bool:
    shown = sys.platform in ("darwin", "win32") or any(os.environ.get(name) for name in ("DISPLAY", "WAYLAND_DISPLAY"))
    return shown and sys.stdout.isatty()


def _open(page: str, folder: Path) -> None:
    """Open the page by way of a file that only its owner can read: other users see the arguments of a program."""
    path = folder / "open.html"
    with os.fdopen(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600), "w") as file:
        file.write(
            f'<!doctype html><meta http-equiv="refresh" content="0; url={html.escape(page)}"><title>Shoal</title>'
        )
    webbrowser.open(path.as_uri())

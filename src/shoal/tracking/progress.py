"""Progress bars: in a terminal a line that is drawn anew, in a notebook an element of HTML."""

import sys
from html import escape
from typing import Any, Protocol, TextIO


class Bar(Protocol):
    """Draws how far something is."""

    def draw(self, done: int, text: str) -> None:
        """Draw `done` rounds, in place of what was drawn before."""
        ...


class TerminalBar:
    """One line that is drawn anew."""

    def __init__(self, stream: TextIO, rounds: int, *, width: int = 30) -> None:
        self._stream = stream
        self._rounds = rounds
        self._width = width

    def draw(self, done: int, text: str) -> None:
        """Draw the line."""
        full = self._width * min(done, self._rounds) // self._rounds
        bar = "#" * full + "-" * (self._width - full)
        self._stream.write(f"\r[{bar}] {text}" + ("\n" if done >= self._rounds else ""))
        self._stream.flush()


class NotebookBar:
    """A bar below a notebook's cell; `display` is IPython's."""

    def __init__(self, display: Any, rounds: int) -> None:
        self._display = display
        self._rounds = rounds
        self._handle: Any = None

    def draw(self, done: int, text: str) -> None:
        """Draw the bar."""
        bundle = {
            "text/plain": text,
            "text/html": f'<progress value="{done}" max="{self._rounds}"></progress> {escape(text)}',
        }
        if self._handle is None:
            self._handle = self._display(bundle, raw=True, display_id=True)
        else:
            self._handle.update(bundle, raw=True)


def bar(rounds: int, stream: TextIO | None = None) -> Bar | None:
    """Return the bar for where this process shows its output: a notebook, a terminal; None for a file."""
    stream = stream or sys.stderr
    shell = sys.modules.get("IPython")
    if shell is not None and "ipykernel" in sys.modules and shell.get_ipython() is not None:
        return NotebookBar(shell.display.display, rounds)
    return TerminalBar(stream, rounds) if stream.isatty() else None

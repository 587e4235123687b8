"""Which screen a stream gets."""

from typing import TextIO

from shoal.demo.screen import PlainScreen, Screen


def choose(stream: TextIO, score: str, rounds: int) -> Screen:
    """Return the live screen in a terminal that can show it, else plain lines."""
    if not stream.isatty():
        return PlainScreen(stream, score)
    from rich.console import Console

    from shoal.demo.live import LiveScreen

    console = Console(file=stream)
    return PlainScreen(stream, score) if console.is_dumb_terminal else LiveScreen(console, score, rounds)

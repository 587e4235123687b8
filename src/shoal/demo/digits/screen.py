"""What a person, or a program, sees of the digits demo in the terminal."""

import json
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Protocol, Self, TextIO

if TYPE_CHECKING:
    from shoal.core.types import ModelVersion


@dataclass(frozen=True, slots=True)
class Opened:
    """Where the page is, which lets browsers in, and the dashboard with a token that can only look."""

    url: str
    page: str
    viewer_token: str
    home: str


@dataclass(frozen=True, slots=True)
class Made:
    """A version, from how many devices, and its share of right guesses among digits that nobody trains on."""

    version: int
    digest: str
    devices: int
    accuracy: float

    @classmethod
    def of(cls, version: "ModelVersion", accuracy: float) -> Self:
        """Return what is shown of a version."""
        return cls(version.number, version.digest, version.reports, accuracy)


class Screen(Protocol):
    """Shows what happens."""

    def say(self, line: str) -> None:
        """Show one line of what is going on."""
        ...

    def opened(self, opened: Opened) -> None:
        """Show where the page is."""
        ...

    def made(self, made: Made) -> None:
        """Show a version."""
        ...


class PlainScreen:
    """Lines of text."""

    def __init__(self, stream: TextIO) -> None:
        self._stream = stream

    def say(self, line: str) -> None:
        """Print the line."""
        self._stream.write(f"{line}\n")
        self._stream.flush()

    def opened(self, opened: Opened) -> None:
        """Print the page's address, and what to do there."""
        self.say(
            f"\nOpen this page, draw a digit, and tell it which one it is:\n\n  {opened.page}\n\n"
            "Open it in a second browser too: what the first one teaches arrives there, and no drawing does.\n"
            "docs/digits.md says how a phone gets there. Ctrl-C ends the demo.\n\n"
            f"The rounds as they happen: {opened.url}/, sign in with {opened.viewer_token}\n"
        )

    def made(self, made: Made) -> None:
        """Print the version's line."""
        whose = "to start from  " if made.version == 0 else f"of {made.devices:2} devices  "
        self.say(f"version {made.version:4}  {whose}  {made.accuracy:6.1%} of 400 other digits right")


class JsonScreen:
    """One JSON object a line; what is said goes to the other stream."""

    def __init__(self, stream: TextIO, said: TextIO) -> None:
        self._stream = stream
        self._said = said

    def say(self, line: str) -> None:
        """Print the line beside the objects."""
        self._said.write(f"{line}\n")
        self._said.flush()

    def opened(self, opened: Opened) -> None:
        """Print where the page is."""
        self._print(asdict(opened))

    def made(self, made: Made) -> None:
        """Print the version."""
        self._print(asdict(made))

    def _print(self, value: dict[str, object]) -> None:
        self._stream.write(json.dumps(value) + "\n")
        self._stream.flush()

"""How a law says that it does not hold."""

from collections.abc import Iterator
from contextlib import contextmanager

from shoal.core.errors import ShoalError


def hold(holds: bool, text: str) -> None:
    """Raise AssertionError with a text when something does not hold."""
    if not holds:  # not an assert statement: `python -O` must not switch the laws off
        raise AssertionError(text)


@contextmanager
def raises(kind: type[ShoalError], what: str) -> Iterator[None]:
    """Raise AssertionError when a block, described by `what`, does not raise an error of this kind."""
    try:
        yield
    except kind:
        return
    raise AssertionError(f"{what} does not raise {kind.__name__}")

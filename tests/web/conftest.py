from collections.abc import Iterator

import pytest

from tests.web.browser import Browser


@pytest.fixture(scope="session")
def browser() -> Iterator[Browser]:
    """One headless Chromium for all tests of a process."""
    with Browser() as running:
        yield running

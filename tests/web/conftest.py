from collections.abc import Iterator

import pytest

from tests.web.browser import ELSEWHERE, Browser


@pytest.fixture(scope="session")
def browser() -> Iterator[Browser]:
    """One headless Chromium for all tests of a process, which finds this machine under another name too."""
    with Browser(f"--host-resolver-rules=MAP {ELSEWHERE} 127.0.0.1") as running:
        yield running

"""Hypothesis profiles: the same examples on every run, and no deadline, since the machines that test are shared.

The million objects that importing torch makes stay for the whole run: no collection of garbage looks at them again.
"""

import gc
import os
import signal
from collections.abc import Iterator

import pytest
from hypothesis import settings

from shoal.testing.postgres import PostgresProcess, programs

settings.register_profile("quick", deadline=None, derandomize=True, max_examples=40)
settings.register_profile("thorough", deadline=None, max_examples=2000)
settings.load_profile("quick")


def pytest_configure() -> None:
    """Hear the signals that a shell makes its background jobs ignore: programs that tests start inherit that."""
    for each, heard in ((signal.SIGINT, signal.default_int_handler), (signal.SIGHUP, signal.SIG_DFL)):
        if signal.getsignal(each) is signal.SIG_IGN:
            signal.signal(each, heard)


def pytest_collection_finish() -> None:
    """Keep what imports made out of every later collection: a seventh of the quick loop's time went into that."""
    gc.collect()
    gc.freeze()
    gc.set_threshold(10_000, 20, 50)


@pytest.fixture(scope="session")
def postgres() -> Iterator[PostgresProcess]:
    """Run a PostgreSQL server, from the first test that asks for it to the last test of this process."""
    if programs() is None and os.environ.get("CI") != "true":
        pytest.skip("PostgreSQL is not installed: apt-get install postgresql")
    with PostgresProcess() as server:
        yield server

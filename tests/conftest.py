"""Hypothesis profiles: the same examples on every run, and no deadline, since the machines that test are shared.

The million objects that importing torch makes stay for the whole run: no collection of garbage looks at them again.
"""

import gc

from hypothesis import settings

settings.register_profile("quick", deadline=None, derandomize=True, max_examples=40)
settings.register_profile("thorough", deadline=None, max_examples=2000)
settings.load_profile("quick")


def pytest_collection_finish() -> None:
    """Keep what imports made out of every later collection: a seventh of the quick loop's time went into that."""
    gc.collect()
    gc.freeze()
    gc.set_threshold(10_000, 20, 50)

"""Hypothesis profiles: the same examples on every run, and no deadline, since the machines that test are shared."""

from hypothesis import settings

settings.register_profile("quick", deadline=None, derandomize=True, max_examples=40)
settings.register_profile("thorough", deadline=None, max_examples=2000)
settings.load_profile("quick")

"""The short form of `make chaos`: a coordinator dies a hundred times, in every trouble, while real agents train."""

from pathlib import Path

import pytest

from shoal.testing.chaos import run
from shoal.testing.nursery import Nursery


@pytest.mark.processes
@pytest.mark.timeout(900)
def test_a_hundred_deaths_in_every_trouble_lose_nothing_double_nothing_and_change_no_digest(tmp_path: Path):
    with Nursery() as nursery:
        outcome = run(tmp_path, kills=100, seed=2, mode="both", say=lambda _: None, nursery=nursery)
    assert outcome.kills == 100
    assert len(outcome.by_point) >= 12, outcome.by_point
    assert outcome.acknowledged == 6 * outcome.versions > 0
    assert sum(outcome.troubles.values()) == 33
    assert set(outcome.troubles) == {"clock", "damaged bytes", "full disk", "two coordinators"}
    assert (outcome.lost, outcome.doubled) == (0, 0)
    assert outcome.digest_equal
    assert outcome.sound

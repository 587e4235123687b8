"""The short form of `make chaos`: a real coordinator dies twelve times, in every trouble, while real agents train."""

from pathlib import Path

import pytest

from shoal.testing.chaos import run


@pytest.mark.processes
def test_twelve_deaths_in_every_trouble_lose_nothing_double_nothing_and_change_no_digest(tmp_path: Path):
    outcome = run(tmp_path, kills=12, seed=2, mode="both", say=lambda _: None)
    assert outcome.kills == 12
    assert len(outcome.by_point) >= 3
    assert outcome.acknowledged == 6 * outcome.versions > 0
    assert outcome.troubles == {"clock": 1, "damaged bytes": 1, "full disk": 1, "two coordinators": 1}
    assert (outcome.lost, outcome.doubled) == (0, 0)
    assert outcome.digest_equal
    assert outcome.sound

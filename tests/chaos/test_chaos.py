"""The short form of `make chaos`: a real coordinator dies at eight places while real agents train."""

from pathlib import Path

import pytest

from shoal.testing.chaos import run


@pytest.mark.processes
def test_eight_deaths_lose_nothing_double_nothing_and_change_no_digest(tmp_path: Path):
    outcome = run(tmp_path, kills=8, seed=2, mode="both", say=lambda _: None)
    assert outcome.kills == 8
    assert len(outcome.by_point) >= 3
    assert outcome.acknowledged == 6 * outcome.versions > 0
    assert (outcome.lost, outcome.doubled, dict(outcome.refused)) == (0, 0, {})
    assert outcome.digest_equal

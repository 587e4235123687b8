"""The short form of `make chaos`: a real coordinator dies twelve times, in every trouble, while real agents train."""

from pathlib import Path

import pytest

from shoal.testing.chaos import run
from shoal.testing.postgres import PostgresProcess


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


@pytest.mark.processes
def test_on_postgresql_one_that_stands_by_goes_on_with_the_rounds(tmp_path: Path, postgres: PostgresProcess):
    database = postgres.database()
    outcome = run(tmp_path, kills=2, seed=1, mode="takeovers", say=lambda _: None, database=database)
    assert outcome.troubles == {}
    assert outcome.acknowledged == 6 * outcome.versions > 0
    assert (outcome.lost, outcome.doubled, outcome.refused) == (0, 0, {})
    assert outcome.digest_equal
    secret = database.partition("shoal:")[2].partition("@")[0]
    for log in ("server.log", "rival.log"):
        text = (tmp_path / log).read_text()
        assert "serving" in text
        assert secret not in text

"""Deaths of a coordinator on a PostgreSQL database, with another one that stands by."""

from pathlib import Path

import pytest

from shoal.testing.chaos import run
from shoal.testing.nursery import Nursery
from shoal.testing.postgres import PostgresProcess


@pytest.mark.processes
def test_one_that_stands_by_goes_on_with_the_rounds(tmp_path: Path, postgres: PostgresProcess):
    database = postgres.database()
    # as `shoal server` is started by people, not forked
    outcome = run(tmp_path, kills=2, seed=1, mode="takeovers", say=lambda _: None, database=database)
    assert outcome.acknowledged == 6 * outcome.versions > 0
    assert (outcome.lost, outcome.doubled, outcome.refused) == (0, 0, {})
    assert outcome.digest_equal
    secret = database.partition("shoal:")[2].partition("@")[0]
    for log in ("server.log", "rival.log"):
        text = (tmp_path / log).read_text()
        assert "serving" in text
        assert secret not in text


@pytest.mark.processes
def test_twelve_deaths_in_every_trouble_lose_nothing(tmp_path: Path, postgres: PostgresProcess):
    with Nursery() as nursery:
        outcome = run(tmp_path, kills=12, seed=2, say=lambda _: None, database=postgres.database(), nursery=nursery)
    assert sum(outcome.troubles.values()) == 4
    assert outcome.acknowledged == 6 * outcome.versions > 0
    assert outcome.sound

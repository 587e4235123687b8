"""One coordinator at a time leads a PostgreSQL database; who no longer does writes nothing."""

import threading
from collections.abc import Callable
from contextlib import closing

import pytest

from shoal.core.errors import ConfigurationError, Superseded
from shoal.rounds.events import Recorded, Ticked
from shoal.store import lead as leading
from shoal.store.lead import Lead
from shoal.store.sql import SqlStore, database
from shoal.store.store import TokenRecord
from shoal.testing.postgres import PostgresProcess

pytestmark = pytest.mark.processes
TICK = [Recorded(0.0, Ticked())]


@pytest.fixture
def url(postgres: PostgresProcess) -> str:
    return postgres.database()


@pytest.fixture(autouse=True)
def _impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(leading, "STANDBY_SECONDS", 0.05)
    monkeypatch.setattr(leading, "BEAT_SECONDS", 0.01)


def led(url: str) -> tuple[Lead, SqlStore]:
    place = database(url)
    lead = Lead(place)
    lead.lock()
    store = SqlStore(place, guard=lead.guard)
    lead.begin()
    return lead, store


def test_a_second_one_is_refused_and_told_who_leads(url: str, postgres: PostgresProcess, monkeypatch):
    monkeypatch.setattr(leading, "PATIENCE_SECONDS", 0.05)
    first, store = led(url)
    with closing(first), closing(store):
        with pytest.raises(ConfigurationError, match=r"\*\*\*@/postgres is led by shoal .*:\d+") as refusal:
            Lead(database(url)).lock()
        assert "--standby" in refusal.value.fix
        other = Lead(database(postgres.database()))  # each schema is a database of its own
        other.lock()
        other.close()


def test_one_that_stands_by_goes_on_when_the_first_one_ends(url: str, monkeypatch):
    first, store = led(url)
    monkeypatch.setattr(leading, "PATIENCE_SECONDS", 0.05)
    second = Lead(database(url))
    waiting = threading.Thread(target=lambda: second.lock(standby=True), daemon=True)
    waiting.start()
    waiting.join(0.2)
    assert waiting.is_alive()
    store.close()
    first.close()
    waiting.join(30)
    assert not waiting.is_alive()
    second.close()


def broken(lead: Lead, postgres: PostgresProcess) -> None:
    """End the connection that holds the lock, as a network does."""
    assert lead._connection is not None
    pid = lead._connection.exec_driver_sql("SELECT pg_backend_pid()").scalar_one()
    postgres.execute(f"SELECT pg_terminate_backend({pid})")


def watched(lead: Lead, until: Callable[[threading.Event], bool]) -> bool:
    lost = threading.Event()
    lead.watch(lost.set)
    return until(lost)


def test_a_broken_connection_is_mended_when_nobody_else_led(url: str, postgres: PostgresProcess, monkeypatch):
    lead, store = led(url)
    with closing(lead), closing(store):
        broken(lead, postgres)
        assert lead._held()
        assert store.append("a", TICK, expect=0, epoch=0) == 1
        monkeypatch.setattr(leading, "PATIENCE_SECONDS", 0.05)
        with pytest.raises(ConfigurationError, match="is led by"):
            Lead(database(url)).lock()


def test_who_lost_the_lead_writes_nothing_and_is_told(url: str, postgres: PostgresProcess):
    lead, store = led(url)
    with closing(lead), closing(store):
        broken(lead, postgres)
        newer, its_store = led(url)
        with closing(newer), closing(its_store):
            with pytest.raises(Superseded, match="another coordinator leads"):
                store.append("a", TICK, expect=0, epoch=0)
            with pytest.raises(Superseded):
                store.add_token(TokenRecord("a", "admin", 1.0))
            assert watched(lead, lambda lost: lost.wait(30))
            assert its_store.append("a", TICK, expect=0, epoch=0) == 1
            assert its_store.tokens() == []


def test_also_when_the_newer_one_is_gone_again(url: str, postgres: PostgresProcess):
    lead, store = led(url)
    with closing(lead), closing(store):
        broken(lead, postgres)
        newer, its_store = led(url)
        its_store.close()
        newer.close()
        assert watched(lead, lambda lost: lost.wait(30))
        with pytest.raises(Superseded):
            store.append("a", TICK, expect=0, epoch=0)

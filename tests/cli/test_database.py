"""Where a coordinator keeps its database, as people type it."""

from pathlib import Path

import pytest
from typer.testing import CliRunner

from shoal.cli.main import app
from shoal.store.lead import Lead
from shoal.store.sql import SqlStore, database
from shoal.testing.postgres import PostgresProcess

SECRET = "postgresql://shoal:a-password@127.0.0.1:9/shoal"


def refused(*arguments: str, code: int, **environment: str) -> str:
    result = CliRunner().invoke(app, list(arguments), env=environment, catch_exceptions=False)
    assert (result.exit_code, result.stdout) == (code, ""), result.output
    assert "a-password" not in result.stderr
    return " ".join(result.stderr.split())


@pytest.mark.parametrize("command", [("server",), ("server", "migrate")])
def test_a_password_on_the_command_line_is_refused(tmp_path: Path, command: tuple[str, ...]):
    said = refused(*command, "--home", str(tmp_path / "home"), "--database", SECRET, code=2)
    assert "SHOAL_DATABASE" in said
    assert not (tmp_path / "home").exists()


def test_a_database_that_is_away_is_named_without_its_password(tmp_path: Path):
    said = refused("server", "--home", str(tmp_path), "--port", "0", code=1, SHOAL_DATABASE=SECRET)
    assert "postgresql://shoal:***@127.0.0.1:9/shoal cannot be reached" in said


def test_nobody_stands_by_for_a_file(tmp_path: Path):
    assert "--standby without" in refused("server", "--home", str(tmp_path), "--port", "0", "--standby", code=1)


@pytest.mark.processes
def test_migrate_keeps_off_a_database_in_use(tmp_path: Path, postgres: PostgresProcess, monkeypatch):
    monkeypatch.setattr("shoal.store.lead.PATIENCE_SECONDS", 0.05)
    monkeypatch.setenv("COLUMNS", "300")
    url = postgres.database()
    SqlStore(url).close()
    command = ["server", "migrate", "--home", str(tmp_path)]
    done = CliRunner().invoke(app, command, env={"SHOAL_DATABASE": url}, catch_exceptions=False)
    assert (done.exit_code, "already" in done.stdout) == (0, True)
    lead = Lead(database(url))
    lead.lock()
    assert "is led by shoal" in refused(*command, code=1, SHOAL_DATABASE=url)
    lead.close()

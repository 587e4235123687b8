"""Tables fold to the terminal, and programs get JSON in their place."""

import io

import pytest
import typer
from typer.core import TyperGroup
from typer.testing import CliRunner

from shoal.cli.main import app
from shoal.cli.output import print_table
from shoal.cli.watch import Table
from shoal.core.types import Costs, ModelVersion

VERSION = ModelVersion(12, "ab" * 32, "cd" * 32, 0.0, reports=3, metrics={"loss": 0.25, "mae": 1.5}, costs=Costs(1.0))


def commands(group, names=()):
    for name, command in group.commands.items():
        yield (*names, name), command
        if isinstance(command, TyperGroup):
            yield from commands(command, (*names, name))


def test_every_command_takes_json():
    without = [
        " ".join(names)
        for names, command in commands(typer.main.get_command(app))
        if not (isinstance(command, TyperGroup) and (command.no_args_is_help or not command.invoke_without_command))
        and not any("--json" in parameter.opts for parameter in command.params)
    ]
    assert without == []


@pytest.mark.slow
@pytest.mark.parametrize("columns", [40, 80, 200])
def test_a_table_folds_to_the_width(columns, monkeypatch):
    monkeypatch.setenv("COLUMNS", str(columns))
    shown = CliRunner().invoke(app, ["strategies"]).stdout
    assert max(map(len, shown.splitlines())) <= columns
    assert "fedavg" in shown


def test_a_table_of_many_columns_becomes_a_list_in_a_narrow_terminal(monkeypatch, capsys):
    heads = ("version", "digest", "parent", "reports", "metrics", "made", "standing", "notes")
    row = (12, "ab" * 32, "cd" * 32, 3, "loss 0.25", "2026-01-05 09:30:01", "serving", "")
    monkeypatch.setenv("COLUMNS", "40")
    print_table(heads, [row, row])
    narrow = capsys.readouterr().out
    assert max(map(len, narrow.splitlines())) <= 40
    assert narrow.splitlines()[0].split() == ["version", "12"]
    assert narrow.count("standing") == 2
    assert "2026-01-05 09:30:01" in narrow
    monkeypatch.setenv("COLUMNS", "200")
    print_table(heads, [row, row])
    assert capsys.readouterr().out.count("standing") == 1


@pytest.mark.parametrize(("columns", "lines"), [(40, 3), (200, 1)])
def test_the_rows_of_a_followed_task_fold_to_the_width(columns, lines, monkeypatch):
    monkeypatch.setenv("COLUMNS", str(columns))
    stream = io.StringIO()
    Table(stream).row(VERSION, {"loss": 0.5})
    shown = stream.getvalue().splitlines()
    assert max(map(len, shown)) <= columns
    assert len(shown) == 2 * lines
    heads, row = " ".join(shown[:lines]).split(), " ".join(shown[lines:]).split()
    assert heads[:3] == ["round", "loss", "mae"]
    assert row[:5] == ["12", "0.25", "1.5", "0.5", "1.000"]

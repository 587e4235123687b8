"""What a run looks like in a terminal, in a file and to a program."""

import io
import json

import pytest
from rich.console import Console

from shoal.core.types import Costs, ModelVersion
from shoal.demo.choice import choose
from shoal.demo.live import SHOWN, LiveScreen
from shoal.demo.screen import SCORE, JsonScreen, Outcome, PlainScreen, Row, amount, row

OUTCOME = Outcome(20.81, 13.5, 83.7, 100, 9.25, 18.5, "boston.safetensors", "ab" * 32)


def made(number: int, mse: float | None = 27.947) -> Row:
    return Row(number, mse, 0.0761, 0.0597, 17_034, 1_200_000, 0.18, number, "cd" * 32)


def test_a_row_holds_what_a_version_cost():
    version = ModelVersion(3, "d" * 64, "p" * 64, 0.0, costs=Costs(1.0, 2.0, 3.0, 4, 5))
    assert row(version, 22.5) == Row(3, 22.5, 1.0, 2.0, 4, 5, 3.0, 3, "d" * 64)


@pytest.mark.parametrize(
    ("size", "text"),
    [(0, "0 B"), (999, "999 B"), (17_034, "17.0 kB"), (1_200_000, "1.2 MB"), (5 * 10**16, "50000.0 TB")],
)
def test_amounts_of_bytes(size, text):
    assert amount(size) == text


def test_plain_lines_show_every_round_in_columns():
    stream = io.StringIO()
    screen = PlainScreen(stream, SCORE)
    screen.say("bob releases: everything")
    for number in range(1, 31):
        screen.row(made(number))
    screen.end()
    screen.outcome(OUTCOME, ["the end"])
    lines = stream.getvalue().splitlines()
    assert lines[0] == "bob releases: everything"
    assert lines[1].split() == ["round", "test", "MSE", "training", "s", "network", "s", "up", "down"]
    assert lines[2].split() == ["1", "27.947", "0.076", "0.060", "17.0", "kB", "1.2", "MB"]
    assert [line.split()[0] for line in lines[2:32]] == [str(number) for number in range(1, 31)]
    assert lines[32:] == ["", "the end"]
    assert {len(line) for line in lines[1:32]} == {67}


def test_json_is_one_object_a_line_and_nothing_else():
    stream, said = io.StringIO(), io.StringIO()
    screen = JsonScreen(stream, said)
    screen.say("bob releases: everything")
    screen.row(made(1))
    screen.end()
    screen.outcome(OUTCOME, ["the end"])
    first, last = (json.loads(line) for line in stream.getvalue().splitlines())
    assert set(first) == {
        "round", "mse", "train_seconds", "network_seconds", "bytes_up", "bytes_down", "cpu_seconds", "version", "digest"
    }  # fmt: skip
    assert last == {
        "final": True, "mse": 20.81, "central_mse": 13.5, "mean_mse": 83.7, "rounds": 100, "seconds": 9.25,
        "cpu_seconds": 18.5, "model_path": "boston.safetensors", "digest": "ab" * 32,
    }  # fmt: skip
    assert said.getvalue() == "bob releases: everything\n"


def test_the_live_table_shows_the_last_rounds_in_80_columns():
    stream = io.StringIO()
    console = Console(file=stream, force_terminal=True, width=80, height=40, color_system=None, legacy_windows=False)
    screen = LiveScreen(console, SCORE, rounds=100)
    screen.say("bob releases: [everything]")
    for number in range(1, 31):
        screen.row(made(number))
    screen.end()
    screen.outcome(OUTCOME, ["the end"])
    text = stream.getvalue()
    assert "bob releases: [everything]" in text
    assert text.rstrip().endswith("the end")
    table = text[text.rindex("test MSE") :].splitlines()
    shown = [line.split()[0] for line in table[1 : SHOWN + 1]]
    assert shown == [str(number) for number in range(31 - SHOWN, 31)]
    assert "30/100" in table[SHOWN + 1]
    assert "left" in table[SHOWN + 1]
    assert max(len(line.rstrip()) for line in table) <= 80


def test_a_missing_score_is_a_dash():
    assert made(1, None).cells()[1] == "-"


def test_ending_a_live_screen_that_never_began_draws_nothing():
    stream = io.StringIO()
    LiveScreen(Console(file=stream, force_terminal=True, width=80), SCORE, rounds=1).end()
    assert stream.getvalue() == ""


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


def test_the_live_screen_is_for_terminals(monkeypatch):
    monkeypatch.setenv("TERM", "xterm")
    assert isinstance(choose(Terminal(), SCORE, 1), LiveScreen)
    assert isinstance(choose(io.StringIO(), SCORE, 1), PlainScreen)
    monkeypatch.setenv("TERM", "dumb")
    assert isinstance(choose(Terminal(), SCORE, 1), PlainScreen)

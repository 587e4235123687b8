"""Who takes part: by seed and round, by size, by loss."""

import io
from collections import Counter

import pytest

import shoal
from shoal import LocalPlan
from shoal.core.errors import ConfigurationError
from shoal.simulation.callbacks import EarlyStopping, ProgressBar, progress
from shoal.simulation.selection import BySize, PowerOfChoice, Selection, Uniform
from tests.simulation.cohorts import regression_clients, regression_task

NAMES = [f"n{i}" for i in range(20)]


def chosen(selection: Selection, round: int = 1, seed: int = 0, **losses: float) -> list[str]:
    return list(selection.choose(NAMES, 5, seed=seed, round=round, losses=losses))


@pytest.mark.parametrize("selection", [Uniform(), BySize(dict.fromkeys(NAMES, 2.0)), PowerOfChoice(8)], ids=str)
def test_a_cohort_is_of_different_clients_and_follows_seed_and_round(selection: Selection):
    first = chosen(selection)
    assert len(set(first)) == 5
    assert chosen(selection) == first
    assert chosen(selection, round=2) != first != chosen(selection, seed=1)


def test_uniform_takes_everybody_equally_often():
    counts = Counter(name for round in range(2000) for name in chosen(Uniform(), round))
    assert set(counts) == set(NAMES)
    assert max(counts.values()) - min(counts.values()) < 120  # 500 each, with a standard deviation of 19


def test_by_size_prefers_the_large():
    sizes = {name: 10.0 if name == "n3" else 1.0 for name in NAMES}
    counts = Counter(name for round in range(500) for name in chosen(BySize(sizes), round))
    assert counts["n3"] > 3 * counts["n4"]
    with pytest.raises(ConfigurationError, match="client 'n5' has no size"):
        chosen(BySize({**sizes, "n5": 0.0}))


def test_power_of_choice_takes_the_highest_losses_and_first_of_all_the_unknown():
    known = {name: float(i) for i, name in enumerate(NAMES) if name != "n2"}
    assert chosen(PowerOfChoice(20), **known) == ["n2", "n19", "n18", "n17", "n16"]
    with pytest.raises(ConfigurationError, match="4 candidates for a cohort of 5"):
        chosen(PowerOfChoice(4))


def test_the_progress_bar_is_one_line_in_a_terminal():
    shown = io.StringIO()
    task = regression_task(LocalPlan(batch_size=4))
    shoal.simulate(
        task, regression_clients((4, 4)), rounds=4, trainer="loop", callbacks=[ProgressBar(shown, 4, width=8)]
    )
    lines = shown.getvalue().split("\r")
    assert [line[:15] for line in lines[1:]] == [
        "[##------] 1/4 ",
        "[####----] 2/4 ",
        "[######--] 3/4 ",
        "[########] 4/4 ",
    ]
    assert shown.getvalue().count("\n") == 1


def test_a_file_gets_no_progress_bar():
    assert progress(4, io.StringIO()) == []


def test_early_stopping_wants_sensible_numbers():
    with pytest.raises(ConfigurationError, match="patience=0"):
        EarlyStopping(patience=0)

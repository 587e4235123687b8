"""Who takes part: by seed and round, by size, by loss."""

import io
from collections import Counter
from pathlib import Path

import pytest

import shoal
from shoal import LocalPlan
from shoal.core.errors import ConfigurationError
from shoal.simulation.callbacks import EarlyStopping, Progress, progress
from shoal.simulation.run import SimulatedRun
from shoal.simulation.selection import BySize, Cyclic, PowerOfChoice, Seen, Selection, Uniform, Utility
from shoal.tracking.progress import TerminalBar
from tests.simulation.cohorts import regression_clients, regression_task

NAMES = [f"n{i}" for i in range(20)]


def chosen(selection: Selection, round: int = 1, seed: int = 0, **losses: float) -> list[str]:
    seen = {name: Seen(loss, 10.0, 1) for name, loss in losses.items()}
    return list(selection.choose(NAMES, 5, seed=seed, round=round, seen=seen))


EVERY = [Uniform(), BySize(dict.fromkeys(NAMES, 2.0)), PowerOfChoice(8), Cyclic(shuffled=True), Utility()]


@pytest.mark.parametrize("selection", EVERY, ids=str)
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


def test_cyclic_takes_everybody_once_before_anybody_twice():
    assert [chosen(Cyclic(), round)[0] for round in (1, 2, 3, 4, 5)] == ["n0", "n5", "n10", "n15", "n0"]
    assert list(Cyclic().choose(NAMES[:7], 3, seed=0, round=3, seen={})) == ["n6", "n0", "n1"]
    passed = [name for round in range(1, 5) for name in chosen(Cyclic(shuffled=True), round, seed=3)]
    assert sorted(passed) == sorted(NAMES)
    assert passed != NAMES


def test_utility_by_hand():
    # n * F: 10, 8 and 1 over the largest: 1, 0.8 and 0.1; in round 100 sqrt(0.1 * ln 100 / last) adds
    # sqrt(0.4605 / 99) = 0.068 to those seen last and sqrt(0.4605 / 1) = 0.679 to the one seen first only
    seen = {"n0": Seen(1.0, 10.0, 99), "n1": Seen(2.0, 4.0, 1), "n2": Seen(0.5, 2.0, 99)}
    only = Utility(explore=0.0, least=0.0)

    def take(count: int, known: dict[str, Seen]) -> list[str]:
        return list(only.choose(["n0", "n1", "n2"], count, seed=0, round=100, seen=known))

    assert take(1, seen) == ["n1"]  # 1.479 against 1.068 and 0.168
    assert set(take(2, seen)) == {"n0", "n1"}
    assert take(1, {**seen, "n1": Seen(2.0, 4.0, 99)}) == ["n0"]  # 1.068 against 0.868


def test_utility_draws_new_clients_by_a_share_that_falls():
    seen = {name: Seen(1.0, 10.0, 1) for name in NAMES[:12]}

    def new(round: int, known: dict[str, Seen]) -> int:
        drawn = Utility().choose(NAMES, 10, seed=0, round=round, seen=known)
        assert len(set(drawn)) == 10
        return len(set(drawn) - known.keys())

    assert new(1, {}) == 10
    assert new(2, seen) == 8  # nine of ten are wanted, eight are left
    assert new(60, seen) == 3  # 0.9 * 0.98**59 * 10 = 2.73
    assert new(1000, seen) == 2
    assert new(1000, {name: Seen(0.0, 10.0, 1) for name in NAMES}) == 0


@pytest.mark.parametrize("selection", [Utility(), PowerOfChoice(6)], ids=str)
def test_what_is_remembered_is_part_of_the_checkpoint(selection: Selection, tmp_path: Path):
    task, path = regression_task(LocalPlan(batch_size=4)), tmp_path / "checkpoint"
    options = {"rounds": 6, "cohort": 3, "trainer": "loop", "selection": selection}

    def cut(run: SimulatedRun) -> None:
        if len(run.history) == 5:
            raise KeyboardInterrupt

    whole = shoal.simulate(task, regression_clients(), **options)
    with pytest.raises(KeyboardInterrupt):
        shoal.simulate(task, regression_clients(), **options, checkpoint=path, every=2, callbacks=[cut])
    again = shoal.simulate(task, regression_clients(), **options, resume=path)
    assert [version.digest for version in again.versions] == [version.digest for version in whole.versions]


def test_the_progress_bar_is_one_line_in_a_terminal():
    shown = io.StringIO()
    task = regression_task(LocalPlan(batch_size=4))
    shoal.simulate(
        task,
        regression_clients((4, 4)),
        rounds=4,
        trainer="loop",
        callbacks=[Progress(TerminalBar(shown, 4, width=8), 4)],
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
    with pytest.raises(ConfigurationError, match=r"explore=0\.1, decay=0\.98, least=0\.2"):
        Utility(explore=0.1)
    with pytest.raises(ConfigurationError, match="patience=0"):
        EarlyStopping(patience=0)

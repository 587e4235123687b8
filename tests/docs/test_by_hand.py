"""The pages by-hand.md and python.md, followed as a reader would, against real processes."""

import shutil
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from safetensors.numpy import load_file

from tests.docs.following import follow, free_port, steps, write_files
from tests.docs.pages import blocks
from tests.docs.terminals import Terminals

PAGE = "by-hand.md"
OTHER_ADDRESS = "127.0.0.2"
"""Stands for the first machine's address on the network: only a coordinator that listens on all of them answers."""


@pytest.fixture(scope="module")
def first_machine(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Terminals, Path, list[str]]]:
    """The first part of the page, done; its coordinator and owners still run."""
    folder = tmp_path_factory.mktemp("one") / "work"
    write_files(PAGE, folder)
    with Terminals({"8080": free_port()}) as terminals:
        yield terminals, folder, follow(PAGE, terminals, {"first": folder})["researcher"]


@pytest.mark.processes
def test_on_one_machine(first_machine: tuple[Terminals, Path, list[str]]):
    _, folder, (_, trained, looked, went_on) = first_machine
    assert trained.index("bob") < trained.index("alice") < trained.index("checked")
    assert "checked 200 rows of 2 owners: x[0] 2" in trained
    head, *rows = trained[trained.index("  round") :].splitlines()
    assert head.split()[:8] == ["round", "loss", "holdout_loss", "holdout_mae", "test", "loss", "test", "mae"]
    assert len(rows) == 20
    assert float(rows[-1].split()[5]) < float(rows[0].split()[5]) / 2  # test mae
    for shown in ("prices-1", "finished", "manifest", "owner alice", "owner bob", "layers.0.weight", "relative"):
        assert shown in looked
    assert sorted(load_file(folder / "prices.safetensors")) == sorted(
        ["scale", "layers.0.weight", "layers.0.bias", "layers.2.weight", "layers.2.bias"]
    )
    assert "prices-2" in went_on
    assert "prices-3 cancelled: only to show how" in went_on
    for owner in ("bob", "alice"):
        log = folder / ".shoal" / "agents" / owner / "releases.jsonl"
        assert log.read_text().count('"kind":"update"') >= 22


@pytest.mark.processes
def test_from_python(first_machine: tuple[Terminals, Path, list[str]], monkeypatch: pytest.MonkeyPatch, capsys):
    terminals, folder, _ = first_machine
    monkeypatch.chdir(folder)
    monkeypatch.syspath_prepend(folder)
    names: dict[str, object] = {}
    try:
        for number, block in enumerate(blocks("python.md")):
            text = block.text
            for word, replacement in terminals.words.items():
                text = text.replace(word, replacement)
            exec(compile(text, f"python.md, block {number + 1}", "exec"), names)
    finally:
        sys.modules.pop("task", None)
    printed = capsys.readouterr().out
    assert "['bob', 'alice']" in printed
    assert "'alice': 'loop', 'bob': 'loop'" in printed
    assert "True\n" in printed


@pytest.mark.processes
def test_on_two_machines(tmp_path: Path):
    machines = {name: tmp_path / name for name in ("first", "second")}
    for folder in machines.values():
        write_files(PAGE, folder)
    (make_rows,) = [block for block in steps(PAGE) if "make_rows" in block.text]
    with Terminals({"8080": free_port(), "192.0.2.10": OTHER_ADDRESS}) as terminals:
        terminals.type("researcher", make_rows.text, machines["first"])
        shutil.move(machines["first"] / "alice.npz", machines["second"])
        (trained,) = follow(PAGE, terminals, machines, "two")["researcher"]
    assert "checked 200 rows of 2 owners" in trained
    assert (machines["first"] / "prices.safetensors").exists()
    assert (machines["second"] / ".shoal" / "agents" / "alice" / "releases.jsonl").exists()
    assert not (machines["first"] / ".shoal" / "agents" / "alice").exists()

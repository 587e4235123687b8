"""`shoal.strategies()`, and that every strategy has its page."""

import inspect
import re
from pathlib import Path

import pytest

import shoal
from shoal.algorithms.catalogue import Described, strategies
from shoal.algorithms.strategy import Strategy
from shoal.core.errors import ConfigurationError

FOLDER = Path(__file__).parents[2] / "docs" / "algorithms"
EVERY = list(strategies())
OTHERS = {"README", "baselines"}


def text(page: str) -> str:
    return " ".join((FOLDER / f"{page}.md").read_text().split())


def code(page: str) -> list[str]:
    return re.findall(r"^```python\n(.*?)^```", (FOLDER / f"{page}.md").read_text(), re.MULTILINE | re.DOTALL)


def test_every_public_strategy_is_in_the_table():
    makers = {
        name: made
        for name in shoal.__all__
        if inspect.isfunction(made := getattr(shoal, name)) and inspect.signature(made).return_annotation is Strategy
    }
    assert {one.name for one in EVERY} == set(makers)
    for one in EVERY:
        assert one.call.startswith(f"shoal.{one.name}(")
        # the file of the code tells the same paper
        assert (
            one.short.rpartition(" ")[2] in (inspect.getmodule(makers[one.name]).__doc__ or "") or one.name == "fedavgm"
        )


def test_where_a_strategy_is_valid_and_what_it_keeps_is_read_off_it():
    found = strategies()
    assert found["fedavg"].valid == ("simulation", "server", "plan")
    assert (found["scaffold"].valid, found["scaffold"].clients) == (("simulation", "server"), ("own_control",))
    assert found["scaffold"].shared == ("control",)
    assert found["fedadam"].server == ("m", "v")
    assert found["ditto"].clients == ("a model of its own",)
    assert found["fedper"].clients == ("arrays that match head.*",)


def test_the_table_is_shown_in_notebooks_and_in_terminals():
    shown = strategies()._repr_html_()
    assert shown.count("<tr>") == len(EVERY) + 1
    assert "sum_k p_k (y_k - x)" in shown
    assert "&lt;- x" in shown
    assert len(repr(strategies()).splitlines()) == len(EVERY)


def test_an_unknown_strategy_suggests_the_near_one():
    with pytest.raises(ConfigurationError, match=r"no strategy 'scafold'.*did you mean 'scaffold'\?"):
        strategies()["scafold"]


@pytest.mark.parametrize("one", EVERY, ids=lambda one: one.name)
def test_every_strategy_has_a_page_with_its_paper(one: Described):
    page = text(one.name)
    title, _, number = one.paper.rpartition(" (arXiv:")
    assert title in page
    assert f"https://arxiv.org/abs/{number.removesuffix(')')}" in page
    for heading in ("When to use it", "How to call it", "Where it is valid", "What is kept from round to round"):
        assert f"## {heading}" in page
    for place in ("simulation", "server", "plan"):
        assert (f"{place} (" in page) == (place in one.valid)
    for tree in (*one.shared, *(name for name in one.clients if " " not in name), *one.server):
        assert f"`{tree}`" in page
    assert any(f"shoal.{one.name}(" in block for block in code(one.name))
    assert f"({one.name}.md) | {one.short.partition(',')[0]} | {', '.join(one.valid)} |" in text("README")


def test_no_page_is_left_over():
    assert {path.stem for path in FOLDER.glob("*.md")} == {one.name for one in EVERY} | OTHERS


@pytest.mark.slow
@pytest.mark.parametrize("page", [*(one.name for one in EVERY), "baselines"])
def test_the_code_of_a_page_runs_as_typed(page: str, capsys: pytest.CaptureFixture[str]):
    for block in code(page):
        exec(compile(block, f"{page}.md", "exec"), {})
    assert float(capsys.readouterr().out.split()[0]) < 1000

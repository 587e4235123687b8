"""Parts of the digits demo: who holds which digits, the first version, the page's folder, what the command refuses."""

import io
import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch

from shoal.core.errors import ConfigurationError
from shoal.demo.digits import page
from shoal.demo.digits.rows import OWNED, PRETRAINED, STARTING, TARGET, TESTED, dealt
from shoal.demo.digits.screen import JsonScreen, Made, Opened, PlainScreen
from shoal.demo.digits.task import DigitNet, accuracy, pretrained


def test_no_digit_is_dealt_twice():
    rows = dealt(2)
    owned = [table.features(TARGET) for table in rows.owners]
    parts = [rows.pretrained[0], rows.starting[0], rows.test[0], *owned]
    assert [len(part) for part in parts] == [PRETRAINED, STARTING, TESTED, OWNED, OWNED]
    assert all(part.min() == 0 and part.max() == 16 for part in parts)
    every = np.concatenate(parts)
    alike = len(every) - len(np.unique(every, axis=0))
    assert alike == 0
    assert set(rows.starting[1].tolist()) == set(range(10))


def test_owners_beyond_the_digits_are_refused():
    with pytest.raises(ConfigurationError, match="enough for 4"):
        dealt(5)


@pytest.mark.slow
def test_the_first_version_knows_digits_that_it_did_not_learn_from_and_is_always_the_same():
    torch.set_num_threads(1)
    rows = dealt(1)
    x, y = (torch.from_numpy(part) for part in rows.test)
    torch.manual_seed(5)
    before = torch.rand(1)
    first = pretrained(*rows.pretrained, epochs=4)
    torch.manual_seed(5)
    assert torch.rand(1) == before  # nobody else's random numbers are touched
    assert accuracy(first(x), y) > 0.85
    again = pretrained(*rows.pretrained, epochs=4)
    assert all(torch.equal(a, b) for a, b in zip(first.parameters(), again.parameters(), strict=True))


def test_the_network_takes_counts_of_ink_and_is_as_large_as_the_page_says():
    net = DigitNet()
    assert net(torch.full((3, 64), 16.0)).shape == (3, 10)
    assert sum(parameter.numel() for parameter in net.parameters()) == 6090


def test_a_page_that_is_not_built_is_named(tmp_path, monkeypatch):
    monkeypatch.setattr(page, "files", lambda _: tmp_path)
    with pytest.raises(ConfigurationError, match="make digits"):
        page.lay_out(tmp_path / "page", dealt(1).starting)


def test_the_page_is_laid_out_with_the_starting_digits(tmp_path, monkeypatch):
    built = tmp_path / "static" / "digits"
    built.mkdir(parents=True)
    for name in page.BUILT:
        (built / name).write_text(name)
    monkeypatch.setattr(page, "files", lambda _: tmp_path)
    starting = dealt(1).starting
    page.lay_out(tmp_path / "page", starting)
    examples = json.loads((tmp_path / "page" / "starting.json").read_text())
    assert [example["y"] for example in examples] == starting[1].tolist()
    np.testing.assert_array_equal([example["x"] for example in examples], starting[0])
    assert (tmp_path / "page" / "index.html").read_text() == "index.html"


def test_without_a_runtime_the_way_out_is_named(monkeypatch):
    monkeypatch.setattr(page, "installed", lambda: None)
    with pytest.raises(ConfigurationError, match="pip install shoal-web"):
        page.check_runtime(None)
    page.check_runtime(Path("dist"))


def test_what_people_and_programs_see():
    opened = Opened("http://127.0.0.1:1", "http://127.0.0.1:1/page/#token=t", "v", "/home")
    made = Made(3, "abc", 4, 0.975)
    stream, said = io.StringIO(), io.StringIO()
    PlainScreen(stream).opened(opened)
    PlainScreen(stream).made(made)
    assert "http://127.0.0.1:1/page/#token=t" in stream.getvalue()
    assert "version    3  of  4 devices     97.5% of 400 other digits right" in stream.getvalue()
    screen = JsonScreen(stream := io.StringIO(), said)
    screen.say("starting")
    screen.opened(opened)
    screen.made(made)
    first, second = map(json.loads, stream.getvalue().splitlines())
    assert (first["page"], first["viewer_token"]) == (opened.page, "v")
    assert second == {"version": 3, "digest": "abc", "devices": 4, "accuracy": 0.975}
    assert said.getvalue() == "starting\n"


@pytest.mark.processes
@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (["--digits", "--rounds", "3"], "--rounds: does not go with --digits"),
        (["--every", "3"], "--every: needs --digits"),
        (["--no-open"], "--open: needs --digits"),
    ],
)
def test_options_of_the_other_demo_are_refused(arguments, says):
    command = [sys.executable, "-m", "shoal", "demo", *arguments]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 2
    assert says in done.stderr

"""docs/remote.md is what happens: its worker is started, its blocks run one after the other."""

import re
import shlex
import shutil
import warnings

import pytest
from typer.testing import CliRunner

import shoal
import shoal.data
from shoal.cli.main import app
from tests.docs.pages import FOLDER, blocks
from tests.remote.conftest import start

pytestmark = pytest.mark.processes


def run(page, terminal, names, served=None):
    for block in page:
        if block.marks.get("terminal") == terminal:
            text = block.text
            if served is not None:
                text = text.replace("ws://127.0.0.1:8777", served.url).replace("TOKEN", served.token)
            with warnings.catch_warnings():
                exec(compile(text, "typed.py", "exec"), names)


def test_the_owner_decides_as_typed(tmp_path, capsys, monkeypatch):
    page = blocks("remote.md")
    monkeypatch.chdir(tmp_path)
    shutil.copy(shoal.data.boston.__file__.replace("boston.py", "boston_house_prices.csv"), "boston.csv")
    toml = re.findall(r"```toml\n(.*?)```", (FOLDER / "remote.md").read_text(), re.DOTALL)
    (tmp_path / "boston.toml").write_text(toml[0])
    (tmp_path / "policy.toml").write_text(toml[1])
    [desk] = [block for block in page if block.marks.get("terminal") == "desk"]
    home = tmp_path / "home"
    monkeypatch.setenv("SHOAL_WORKER_HOME", str(home))
    served = start("--data", "boston.csv", "--policy", "policy.toml", "--home", home, "--person", "carol")
    try:
        with served.connect("carol") as bob:
            names = {"shoal": shoal, "bob": bob}
            run(page, "carol", names)
            for line in desk.text.splitlines()[1:]:
                words = shlex.split(line)
                assert words[0] == "shoal"
                done = CliRunner().invoke(app, words[1:])
                assert done.exit_code == 0, done.output
            run(page, "carol again", names)
            assert bob.mock("boston").shape[1] == 13
    finally:
        served.end()
    printed = capsys.readouterr().out
    assert "request carol-1 waits for the owner" in printed
    assert "tensor([" in printed
    assert "request carol-2 waits for the owner" in printed


def test_the_page_works_as_typed(tmp_path, capsys, monkeypatch):
    page = blocks("remote.md")
    monkeypatch.chdir(tmp_path)
    shutil.copy(shoal.data.boston.__file__.replace("boston.py", "boston_house_prices.csv"), "boston.csv")
    said, *_ = re.findall(r"```toml\n(.*?)```", (FOLDER / "remote.md").read_text(), re.DOTALL)
    (tmp_path / "boston.toml").write_text(said)
    [command] = [block for block in page if block.marks.get("terminal") == "owner"]
    words = shlex.split(command.text)
    assert words[:2] == ["shoal", "worker"]
    served = start(*words[2:], "--port", 0)
    try:
        run(page, "researcher", {}, served)
    finally:
        served.end()
    run(page, "owners", {})
    printed = capsys.readouterr().out
    assert "bob ['boston']" in printed
    assert "boston 506 ('#boston', '#housing') (506, 13)" in printed
    assert "RemoteIndexError" in printed
    assert printed.count("made from data set 'boston'") == 1

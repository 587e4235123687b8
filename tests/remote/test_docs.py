"""docs/remote.md is what happens: its worker is started, its blocks run one after the other."""

import re
import shlex
import shutil
import warnings

import pytest

import shoal.data
from tests.docs.pages import FOLDER, blocks
from tests.remote.conftest import start

pytestmark = pytest.mark.processes


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
        names: dict[str, object] = {}
        for block in page:
            if block.marks.get("terminal") == "researcher":
                text = block.text.replace("ws://127.0.0.1:8777", served.url).replace("TOKEN", served.token)
                with warnings.catch_warnings():
                    exec(compile(text, tmp_path / "typed.py", "exec"), names)
    finally:
        served.end()
    printed = capsys.readouterr().out
    assert "bob ['boston']" in printed
    assert "boston 506 ('#boston', '#housing') (506, 13)" in printed
    assert "RemoteIndexError" in printed
    assert printed.count("made from data set 'boston'") == 1

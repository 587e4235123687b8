"""The site is built quickly, without a warning or the network, and its pages ask no other host for anything."""

import os
import re
import resource
import subprocess
import sys
from html.parser import HTMLParser
from pathlib import Path

import pytest

pytestmark = [pytest.mark.processes, pytest.mark.slow]

TOP = Path(__file__).parents[2]
BUILD = """
import socket, sys

def refused(*_, **__):
    raise OSError("the site must be built without the network")

socket.socket.connect = refused
socket.getaddrinfo = refused
from mkdocs.__main__ import cli
cli()
"""


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("site")
    command = [sys.executable, "-c", BUILD, "build", "--strict", "--site-dir", str(folder)]
    environment = {
        **os.environ,
        "PYTHONPATH": str(TOP / "src"),
        "NO_MKDOCS_2_WARNING": "1",
        "PYTHONWARNINGS": "default",
    }
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    built = subprocess.run(command, cwd=TOP, env=environment, capture_output=True, text=True, timeout=280)
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    assert built.returncode == 0, built.stdout + built.stderr
    assert "WARNING" not in built.stderr
    assert after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime < 30
    return folder


class Loaded(HTMLParser):
    """What a browser fetches for a page; links that a reader may follow are not that."""

    def __init__(self) -> None:
        super().__init__()
        self.addresses: list[str] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        given = dict(attrs)
        if tag == "link" and given.get("rel") not in ("canonical", "next", "prev"):
            self.addresses.append(given.get("href") or "")
        elif tag != "a":
            self.addresses.append(given.get("src") or given.get("srcset") or "")


def test_pages_load_nothing_from_elsewhere(site: Path):
    pages = sorted(site.rglob("*.html"))
    assert len(pages) > 40
    for page in pages:
        loaded = Loaded()
        loaded.feed(page.read_text())
        assert any(loaded.addresses)
        assert [address for address in loaded.addresses if re.match(r"(https?:)?//", address)] == [], page.name
    for sheet in site.rglob("*.css"):
        assert not re.search(r"(url\(|@import)\s*['\"]?(https?:)?//", sheet.read_text()), sheet.name


def test_every_page_is_reached(site: Path):
    made = {page.relative_to(TOP / "docs").with_suffix(".html").as_posix() for page in (TOP / "docs").rglob("*.md")}
    front = (site / "index.html").read_text()
    assert [page for page in sorted(made) if f'href="{page.replace("README.html", "index.html")}"' not in front] == []


def test_the_reference_says_what_the_program_says(site: Path):
    commands = (site / "reference/cli.html").read_text()
    for shown in ("shoal agent receipts", "--minimum-rows", "SHOAL_TOKEN", "shoal models promote"):
        assert shown in commands
    names = (site / "reference/running.html").read_text()
    assert "Publishes tasks and follows them, over HTTP." in names
    assert 'id="shoal.Device.observe"' in names
    assert "Add a strategy in 20 lines" in (site / "contributing.html").read_text()

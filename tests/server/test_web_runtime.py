"""The runtime for browsers: found, served by digest, kept for ever."""

import gzip
import importlib
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest

from shoal.core.errors import ConfigurationError
from shoal.server.app import build_app
from shoal.server.coordinator import Coordinator
from shoal.server.web_runtime import NEEDED, WEBGPU, installed, open_runtime
from shoal.store.memory import MemoryBlobs, MemoryStore
from shoal.testing.clock import ManualClock
from shoal.testing.transport import InMemoryTransport

KINDS = {"mjs": "text/javascript", "wasm": "application/wasm"}


def fill(folder: Path) -> Path:
    folder.mkdir(parents=True)
    for name in (*NEEDED, "LICENSE"):
        (folder / name).write_text(f"{name} " * 1000)
    return folder


def client(folder: Path | None) -> httpx.Client:
    app = build_app(Coordinator(MemoryStore(), MemoryBlobs(), clock=ManualClock(0.0)))
    open_runtime(app, folder)
    return httpx.Client(transport=InMemoryTransport(app), base_url="http://shoal")


@pytest.fixture
def served(tmp_path: Path) -> Iterator[httpx.Client]:
    with client(fill(tmp_path / "dist")) as made:
        yield made


@pytest.fixture(autouse=True)
def _not_installed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("shoal.server.web_runtime.PACKAGE", "no_such_package_of_shoal")


def test_files_are_kept_for_ever_under_their_digest(served):
    place = served.get("/runtime/").json()
    assert place["files"] == list(NEEDED)
    assert len(place["from"]) == 65
    for name in NEEDED:
        reply = served.get(f"/runtime/{place['from']}{name}")
        assert reply.text == f"{name} " * 1000
        assert reply.headers["content-encoding"] == "gzip"
        assert reply.headers["cache-control"] == "public, max-age=31536000, immutable"
        assert reply.headers["content-type"].startswith(KINDS[name.rsplit(".")[-1]])
        assert reply.headers["cross-origin-resource-policy"] == "same-origin"
        assert "script-src 'self' 'wasm-unsafe-eval'" in reply.headers["content-security-policy"]
        assert len(gzip.compress(reply.content)) < len(reply.content)
        plain = served.get(f"/runtime/{place['from']}{name}", headers={"Accept-Encoding": "identity"})
        assert plain.content == reply.content
        assert "content-encoding" not in plain.headers


def test_other_files_and_other_digests_are_not_served(served):
    place = served.get("/runtime/").json()["from"]
    for path in (f"{place}LICENSE", f"{place}..%2fLICENSE", f"{'0' * 64}/{NEEDED[0]}"):
        assert served.get(f"/runtime/{path}").status_code == 404
    assert served.get("/runtime/").headers["cache-control"] == "no-cache"


def test_another_file_makes_another_address(tmp_path):
    folder = fill(tmp_path / "dist")
    with client(folder) as first:
        before = first.get("/runtime/").json()["from"]
    (folder / NEEDED[2]).write_text("newer")
    with client(folder) as second:
        assert second.get("/runtime/").json()["from"] != before


def test_files_for_graphics_processors_are_served_where_all_are_there(tmp_path):
    folder = fill(tmp_path / "dist")
    for name in WEBGPU[:2]:
        (folder / name).write_text("x")
    with client(folder) as some:
        assert some.get("/runtime/").json()["files"] == list(NEEDED)
    (folder / WEBGPU[2]).write_text("x")
    with client(folder) as everything:
        assert everything.get("/runtime/").json()["files"] == [*NEEDED, *WEBGPU]


def test_without_files_the_page_is_told_the_way_out():
    with client(None) as none:
        reply = none.get("/runtime/")
        assert reply.status_code == 404
        assert "pip install shoal-web" in reply.json()["fix"]
        assert "--web-runtime DIR" in reply.json()["fix"]


def test_a_folder_without_the_files_is_refused(tmp_path):
    folder = fill(tmp_path / "dist")
    (folder / NEEDED[1]).unlink()
    with pytest.raises(ConfigurationError, match=f"lacks {NEEDED[1]}"):
        client(folder)


def test_an_installed_package_is_found_and_no_code_of_it_runs(tmp_path, monkeypatch):
    fill(tmp_path / "made_up_runtime" / "files")
    (tmp_path / "made_up_runtime" / "__init__.py").write_text("raise AssertionError('it was run')\n")
    monkeypatch.syspath_prepend(str(tmp_path))
    importlib.invalidate_caches()
    monkeypatch.setattr("shoal.server.web_runtime.PACKAGE", "made_up_runtime")
    assert installed() == tmp_path / "made_up_runtime" / "files"
    with client(None) as found:
        assert found.get("/runtime/").json()["files"] == list(NEEDED)

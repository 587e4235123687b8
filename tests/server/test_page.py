"""Pages that a coordinator serves, and calls from pages of other origins."""

from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest

from shoal.core.errors import ConfigurationError
from shoal.server.app import build_app
from shoal.server.coordinator import Coordinator
from shoal.server.page import open_to_browsers
from shoal.store.memory import MemoryBlobs, MemoryStore
from shoal.testing.clock import ManualClock
from shoal.testing.transport import InMemoryTransport

APP = "https://app.example.org"
ASKED = "authorization,content-type,shoal-protocol"
PREFLIGHT = {"Access-Control-Request-Method": "POST", "Access-Control-Request-Headers": ASKED}


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "secret").write_text("not for browsers")
    made = tmp_path / "page"
    (made / "sub").mkdir(parents=True)
    for name in ("index.html", "page.js", "sub/run.mjs", "step.wasm"):
        (made / name).write_text(name)
    (made / "link").symlink_to(tmp_path / "secret")
    return made


@pytest.fixture
def client(folder: Path) -> Iterator[httpx.Client]:
    app = build_app(Coordinator(MemoryStore(), MemoryBlobs(), clock=ManualClock(0.0)))
    open_to_browsers(app, folder, [APP])
    with InMemoryTransport(app) as transport:
        yield httpx.Client(transport=transport, base_url="http://shoal")


@pytest.mark.parametrize(
    ("path", "kind"),
    [
        ("", "text/html"),
        ("page.js", "text/javascript"),
        ("sub/run.mjs", "javascript"),
        ("step.wasm", "application/wasm"),
    ],
)
def test_files_come_with_their_type_and_a_strict_policy(client, path, kind):
    reply = client.get(f"/page/{path}")
    assert reply.text == (path or "index.html")
    assert kind in reply.headers["content-type"]
    policy = reply.headers["content-security-policy"]
    assert "default-src 'none'" in policy
    assert "script-src 'self' 'wasm-unsafe-eval'" in policy
    assert "unsafe-inline" not in policy
    assert "*" not in policy
    assert reply.headers["x-content-type-options"] == "nosniff"


@pytest.mark.parametrize("path", ["../secret", "..%2fsecret", "sub/../../secret", "%2e%2e/secret", "link", "none.js"])
def test_nothing_outside_the_folder_is_served(client, path):
    reply = client.get(httpx.URL("http://shoal", raw_path=f"/page/{path}".encode()))
    assert reply.status_code == 404
    assert "not for browsers" not in reply.text


def test_a_named_origin_may_call(client):
    asked = client.options("/v1/checkin", headers={"Origin": APP, **PREFLIGHT})
    assert asked.status_code == 200
    assert asked.headers["access-control-allow-origin"] == APP
    assert "Authorization" in asked.headers["access-control-allow-headers"]
    refused = client.post("/v1/checkin", headers={"Origin": APP}, content=b"{}")
    assert refused.status_code == 401  # its page can read why
    assert refused.headers["access-control-allow-origin"] == APP
    assert "Retry-After" in refused.headers["access-control-expose-headers"]
    assert "access-control-allow-credentials" not in refused.headers


@pytest.mark.parametrize("origin", ["https://app.example.org.evil.org", "http://app.example.org", "null"])
def test_no_other_origin_may_call(client, origin):
    assert client.options("/v1/checkin", headers={"Origin": origin, **PREFLIGHT}).status_code == 400
    reply = client.get("/healthz", headers={"Origin": origin})
    assert "access-control-allow-origin" not in reply.headers


def test_without_a_page_or_origins_there_is_neither():
    app = build_app(Coordinator(MemoryStore(), MemoryBlobs(), clock=ManualClock(0.0)))
    open_to_browsers(app, None, [])
    with InMemoryTransport(app) as transport, httpx.Client(transport=transport, base_url="http://shoal") as client:
        assert client.get("/page/").status_code == 404
        assert "access-control-allow-origin" not in client.get("/healthz", headers={"Origin": APP}).headers


@pytest.mark.parametrize(
    "origin",
    [
        "*",
        "https://*.example.org",
        "app.example.org",
        "https://app.example.org/",
        "https://App.example.org",
        "https://me@app.example.org",
        "https://app.example.org:443",
        "https://app.example.org:x",
        "ftp://app.example.org",
        "null",
        "",
    ],
)
def test_what_is_no_exact_origin_is_refused(origin):
    app = build_app(Coordinator(MemoryStore(), MemoryBlobs(), clock=ManualClock(0.0)))
    with pytest.raises(ConfigurationError, match="origin"):
        open_to_browsers(app, None, [origin])


def test_a_folder_without_a_page_is_refused(tmp_path):
    app = build_app(Coordinator(MemoryStore(), MemoryBlobs(), clock=ManualClock(0.0)))
    with pytest.raises(ConfigurationError, match=r"no page in .*index\.html"):
        open_to_browsers(app, tmp_path, [])

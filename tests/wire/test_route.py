"""Connections through proxies and to servers with private certificates, over real sockets."""

import contextlib
import datetime
import ipaddress
import socket
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest
import uvicorn
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

from shoal.core.errors import ConfigurationError, Unreachable
from shoal.server.app import build_app
from shoal.server.coordinator import Coordinator
from shoal.store.memory import MemoryBlobs, MemoryStore
from shoal.wire.http import Connection
from shoal.wire.messages import Health
from shoal.wire.route import Proxy, proxy_for
from tests.wire.proxy import ForwardProxy

VARIABLES = ("HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY", "NO_PROXY", "SSL_CERT_FILE", "SSL_CERT_DIR")


@pytest.fixture(autouse=True)
def _bare_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in VARIABLES:
        monkeypatch.delenv(name, raising=False)
        monkeypatch.delenv(name.lower(), raising=False)


@contextlib.contextmanager
def serving(**options: object) -> Iterator[int]:
    """Serve a coordinator in a thread; yields its port."""
    listener = socket.create_server(("127.0.0.1", 0))
    app = build_app(Coordinator(MemoryStore(), MemoryBlobs()))
    server = uvicorn.Server(uvicorn.Config(app, log_config=None, ws="none", **options))  # type: ignore[arg-type]
    thread = threading.Thread(target=server.run, args=([listener],), daemon=True)
    thread.start()
    try:
        yield listener.getsockname()[1]
    finally:
        server.should_exit = True
        thread.join(20)
        assert not thread.is_alive()


@pytest.fixture(scope="module")
def plain() -> Iterator[int]:
    with serving() as port:
        yield port


@pytest.fixture(scope="module")
def certificate(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A self-signed certificate of coordinator.test and 127.0.0.1, with its key behind it."""
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "coordinator.test")])
    now = datetime.datetime.now(datetime.UTC)
    names = [x509.DNSName("coordinator.test"), x509.IPAddress(ipaddress.ip_address("127.0.0.1"))]
    made = (
        x509.CertificateBuilder(name, name, key.public_key(), x509.random_serial_number())
        .not_valid_before(now - datetime.timedelta(days=1))
        .not_valid_after(now + datetime.timedelta(days=1))
        .add_extension(x509.SubjectAlternativeName(names), critical=False)
        .add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True)
        .sign(key, hashes.SHA256())
    )
    pem, private = serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8
    folder = tmp_path_factory.mktemp("tls")
    (folder / "key.pem").write_bytes(key.private_bytes(pem, private, serialization.NoEncryption()))
    path = folder / "certificate.pem"
    path.write_bytes(made.public_bytes(pem))
    return path


@pytest.fixture(scope="module")
def secure(certificate: Path) -> Iterator[int]:
    with serving(ssl_certfile=certificate, ssl_keyfile=certificate.with_name("key.pem")) as port:
        yield port


def health(url: str, **options: object) -> str:
    connection = Connection(url, **options)  # type: ignore[arg-type]
    try:
        return connection.call("GET", "/healthz", None, Health).status
    finally:
        connection.close()


def test_a_plain_call_goes_through_the_proxy_that_the_environment_names(plain: int, monkeypatch: pytest.MonkeyPatch):
    with ForwardProxy(("127.0.0.1", plain)) as proxy:
        monkeypatch.setenv("HTTP_PROXY", proxy.url)
        assert health("http://coordinator.test:8080") == "ok"
        assert proxy.asked == ["GET http://coordinator.test:8080/healthz HTTP/1.1"]


def test_bytes_are_counted_through_a_proxy_too(plain: int, monkeypatch: pytest.MonkeyPatch):
    with ForwardProxy(("127.0.0.1", plain)) as proxy:
        monkeypatch.setenv("HTTP_PROXY", proxy.url)
        connection = Connection("http://coordinator.test:8080")
        connection.call("GET", "/healthz", None, Health)
        connection.close()
    assert connection.traffic.bytes_up > 50
    assert connection.traffic.bytes_down > 50


def test_a_proxy_gets_the_name_and_password_of_its_address(plain: int, monkeypatch: pytest.MonkeyPatch):
    with ForwardProxy(("127.0.0.1", plain), auth="ann:secret") as proxy:
        monkeypatch.setenv("ALL_PROXY", proxy.url)
        assert health("http://coordinator.test:8080") == "ok"


def test_a_tunnel_is_checked_against_the_private_bundle(
    secure: int, certificate: Path, monkeypatch: pytest.MonkeyPatch
):
    with ForwardProxy(("127.0.0.1", secure)) as proxy:
        monkeypatch.setenv("HTTPS_PROXY", proxy.url)
        assert health("https://coordinator.test:8443", ca=certificate) == "ok"
        assert proxy.asked == ["CONNECT coordinator.test:8443 HTTP/1.1"]
        with pytest.raises(Unreachable, match=r"through the proxy http://127.0.0.1:\d+ \(.*certificate"):
            health("https://coordinator.test:8443")
        with pytest.raises(Unreachable, match="certificate"):
            health("https://other.test:8443", ca=certificate)


def test_a_private_bundle_comes_from_the_environment_too(
    secure: int, certificate: Path, monkeypatch: pytest.MonkeyPatch
):
    url = f"https://127.0.0.1:{secure}"
    with pytest.raises(Unreachable, match="certificate"):
        health(url)
    monkeypatch.setenv("SSL_CERT_FILE", str(certificate))
    assert health(url) == "ok"


@pytest.mark.parametrize("exempt", ["coordinator.test", "*", ".test", "coordinator.test:8080"])
def test_no_proxy_exempts(exempt: str, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("HTTP_PROXY", "http://proxy.test:3128")
    assert proxy_for("http://coordinator.test:8080") == Proxy("http://proxy.test:3128")
    monkeypatch.setenv("NO_PROXY", exempt)
    assert proxy_for("http://coordinator.test:8080") is None


@pytest.mark.parametrize("url", ["http://127.0.0.1:8080", "http://localhost:8080", "http://[::1]:8080"])
def test_this_machine_is_never_proxied(url: str, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("HTTP_PROXY", "proxy.test:3128")
    assert proxy_for(url) is None


def test_a_proxy_of_another_kind_is_refused(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("ALL_PROXY", "socks5://ann:secret@proxy.test:1080")
    with pytest.raises(ConfigurationError, match=r"'socks5://proxy.test:1080'") as refused:
        Connection("http://coordinator.test:8080")
    assert "secret" not in str(refused.value)


def test_a_bundle_that_cannot_be_read_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    with pytest.raises(ConfigurationError, match=r"none\.pem"):
        Connection("https://coordinator.test", ca=tmp_path / "none.pem")
    (tmp_path / "junk.pem").write_text("junk")
    with pytest.raises(ConfigurationError, match=r"junk\.pem"):
        Connection("https://coordinator.test", ca=tmp_path / "junk.pem")
    monkeypatch.setenv("SSL_CERT_FILE", str(tmp_path / "none.pem"))
    with pytest.raises(ConfigurationError, match="SSL_CERT_FILE"):
        Connection("https://coordinator.test")

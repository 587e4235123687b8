import json
import stat
from hashlib import sha256
from pathlib import Path

import pytest

from shoal.agent.home import AgentHome, Release
from shoal.agent.sealed import Seal
from shoal.core.errors import BadRequest, ConfigurationError, CorruptStore, WrongKey


def mode(path: Path) -> int:
    return stat.S_IMODE(path.stat().st_mode)


@pytest.fixture
def home(tmp_path: Path):
    with AgentHome(tmp_path / "bob") as made:
        yield made


def test_what_is_secret_is_the_owners_alone(home: AgentHome):
    home.identity("http://shoal", "bob")
    home.keep_report("a1", [b"report"])
    home.log(Release(1.0, "line-1", 1, "update"))
    assert mode(home.path) == 0o700
    files = [path for path in home.path.rglob("*") if path.is_file()]
    assert {path.name: mode(path) for path in files} == {
        "device.json": 0o600,
        "a1.report": 0o600,
        "releases.jsonl": 0o600,
        "lock": 0o600,
    }


def test_a_device_keeps_its_key(home: AgentHome):
    first = home.identity("http://shoal", "bob")
    assert home.identity("http://shoal", "bob") == first
    assert len(first.key.public) == 44
    assert first.key.public != first.private_key


def test_a_home_belongs_to_one_device_of_one_coordinator(home: AgentHome):
    home.identity("http://shoal", "bob")
    for url, name in (("http://shoal", "alice"), ("http://elsewhere", "bob")):
        with pytest.raises(ConfigurationError, match="belongs to device 'bob' of http://shoal"):
            home.identity(url, name)


def test_a_damaged_identity_is_named(home: AgentHome):
    (home.path / "device.json").write_text("{")
    with pytest.raises(ConfigurationError, match=r"device.json cannot be read"):
        home.identity("http://shoal", "bob")


def test_two_agents_cannot_share_a_home(home: AgentHome):
    with pytest.raises(ConfigurationError, match=r"another agent uses .*bob"):
        AgentHome(home.path)
    home.close()
    AgentHome(home.path).close()


def test_reports_wait_until_they_are_dropped(home: AgentHome):
    home.keep_report("b2", [b"two"])
    home.keep_report("a1", [b"o", b"ne"])
    assert home.reports() == ["a1", "b2"]
    home.drop_report("b2")
    home.drop_report("b2")
    assert home.reports() == ["a1"]
    with home.report("a1").open() as file:
        assert file.read(10) == b"one"


def test_a_report_that_was_cut_off_by_a_crash_is_no_report(home: AgentHome):
    (home.path / "outbox" / "a1.report.partial").write_bytes(b"half")
    home.close()
    with AgentHome(home.path) as again:
        assert again.reports() == []
        assert list((again.path / "outbox").iterdir()) == []


@pytest.mark.parametrize("name", ["../../etc/passwd", "", "a" * 65, "a/b", "ü"])
def test_names_from_the_network_never_leave_the_home(home: AgentHome, name: str):
    with pytest.raises(BadRequest, match="letters and digits"):
        home.keep_report(name, [])
    with pytest.raises(BadRequest, match="letters and digits"):
        home.blob(name)


def test_the_log_keeps_every_line(home: AgentHome):
    lines = [
        Release(1.0, "boston-1", 1, "statistics", ("CRIM", "ZN"), 96, "ab"),
        Release(2.0, "boston-2", 1, "update", ("w float32 [2]",), 80, "cd", 0.5),
        Release(3.0, "boston-2", 2, "refused", reason="too few rows"),
    ]
    for line in lines:
        home.log(line)
    assert list(home.releases()) == lines
    written = (home.path / "releases.jsonl").read_text().splitlines()
    assert json.loads(written[1])["norm"] == 0.5


def test_damaged_blobs_are_not_used(home: AgentHome):
    digest = "b94d27b9934d3e08a52e52d7da7dabfac484efe37a5380ee9088f7ace2efcde9"
    assert home.blob(digest) is None
    kept = home.keep_blob(digest, lambda _: [b"hello", b" world"])
    assert home.blob(digest) == kept
    assert kept.read_bytes() == b"hello world"
    kept.write_bytes(b"hello w0rld")
    assert home.blob(digest) is None


def test_one_version_is_kept_also_when_the_download_of_the_next_fails(home: AgentHome):
    first, second = (sha256(text).hexdigest() for text in (b"one", b"two"))
    home.keep_version(first, lambda _: [b"one"])
    home.keep_version(second, lambda _: [b"two"])
    assert home.version(first) is None
    assert home.version(second) == home.path / "versions" / second
    with pytest.raises(CorruptStore, match=f"blob {first} arrived as 3 bytes"):
        home.keep_version(first, lambda _: [b"o", b"nf"])
    assert list((home.path / "versions").iterdir()) == [home.path / "versions" / second]


def test_with_a_seal_neither_key_nor_report_can_be_read_on_disk(tmp_path):
    key = bytes(range(32))
    with AgentHome(tmp_path / "home", Seal(key)) as home:
        made = home.identity("http://a", "bob")
        home.keep_report("a1", [b"what bob trained"])
    kept = b"".join(path.read_bytes() for path in (tmp_path / "home").rglob("*") if path.is_file())
    assert made.private_key.encode() not in kept
    assert b"what bob trained" not in kept
    with AgentHome(tmp_path / "home", Seal(key)) as again:
        assert again.identity("http://a", "bob") == again.known() == made
        with again.report("a1").open() as report:
            assert report.read(100) == b"what bob trained"
    for seal, problem in ((Seal(bytes(32)), "cannot be opened"), (Seal(), "sealed, no key was given")):
        with AgentHome(tmp_path / "home", seal) as other, pytest.raises(WrongKey, match=problem):
            other.identity("http://a", "bob")


def test_a_home_that_was_made_without_a_seal_takes_none(tmp_path):
    with AgentHome(tmp_path / "home") as home:
        home.identity("http://a", "bob")
    with AgentHome(tmp_path / "home", Seal(bytes(32))) as home, pytest.raises(WrongKey, match="not sealed"):
        home.known()

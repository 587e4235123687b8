"""A home is copied, checked and restored; what was damaged or is no backup is refused."""

import json
import shutil
import sqlite3
from contextlib import closing
from pathlib import Path

import pytest

from shoal.core.errors import ConfigurationError, CorruptStore
from shoal.server.backup import back_up, migrate, restore
from shoal.server.home import alone, sharing
from shoal.server.key import ReceiptKey
from shoal.server.limits import Limits
from shoal.store.sql import SqlStore
from shoal.store.tables import REVISION
from shoal.testing.clock import ManualClock
from tests.server.conftest import delta, report_body, spec
from tests.server.homes import serving, train, until

FIRST = Path(__file__).parents[1] / "store" / "schemas" / "0001.sql"


def old_home(path):
    path.mkdir(parents=True)
    with closing(sqlite3.connect(path / "shoal.db")) as connection:
        connection.executescript(FIRST.read_text())
    return path


def files(folder):
    return {str(p.relative_to(folder)): p.read_bytes() for p in folder.rglob("*") if p.is_file() and p.name != "lock"}


@pytest.fixture
def clock():
    return ManualClock()


@pytest.mark.slow
@pytest.mark.parametrize("inline", [1 << 20, 1])
def test_a_served_home_is_copied_and_goes_on_elsewhere(tmp_path, clock, monkeypatch, inline):
    monkeypatch.setattr("shoal.server.routes_devices.INLINE_BYTES", inline)
    with serving(tmp_path / "home", clock) as served:
        task = served.publish(spec(rounds=3, goal=1)).id
        train(served, task, range(1, 2))
        served.publish(spec(name="other", rounds=1, goal=2))
        given = served.check_in("bob", training=["other"]).assignment
        assert served.report("bob", given.id, report_body(delta(1.0))).status_code == 200
        manifest = back_up(tmp_path / "home", tmp_path / "copy", now=5.0)
        train(served, task, range(2, 4))
        expected = served.versions(task).versions
    assert (manifest.tasks, manifest.made, manifest.removed, manifest.revision) == (2, 5.0, (), REVISION)
    assert [blob.namespace for blob in manifest.blobs].count("updates") == (inline == 1)
    restored = restore(tmp_path / "copy", tmp_path / "new")
    assert restored == manifest
    with serving(tmp_path / "new", clock, devices=served.devices) as again:
        assert [v.digest for v in again.versions(task).versions] == [v.digest for v in expected[:2]]
        train(again, task, range(2, 4))
        assert [v.digest for v in again.versions(task).versions] == [v.digest for v in expected]
        given = again.check_in("alice", training=["other"]).assignment
        assert again.report("alice", given.id, report_body(delta(3.0))).status_code == 200
        assert again.versions("other-1", after=0).versions[0].reports == 2


def test_models_are_linked_on_the_same_disk_and_copied_when_asked(tmp_path, clock):
    with serving(tmp_path / "home", clock) as served:
        train(served, served.publish(spec(rounds=1, goal=1)).id, range(1, 2))
    for copy, links in ((False, 2), (True, 1)):
        back_up(tmp_path / "home", tmp_path / f"copy{copy}", copy=copy)
        counts = {path.stat().st_nlink for path in (tmp_path / f"copy{copy}" / "blobs").glob("*/??/*")}
        assert counts == {links}
        shutil.rmtree(tmp_path / f"copy{copy}")


def test_versions_that_retention_removed_are_named(tmp_path, clock):
    with serving(tmp_path / "home", clock, Limits(keep_versions=1)) as served:
        task = served.publish(spec(rounds=3, goal=1)).id
        train(served, task, range(1, 4))
        until(served, task, lambda: served.coordinator.housekeeping.removed == 2)
        versions = served.versions(task).versions
    manifest = back_up(tmp_path / "home", tmp_path / "copy")
    assert set(manifest.removed) == {versions[1].digest, versions[2].digest}


def test_an_update_that_goes_while_it_is_copied_makes_the_copy_start_again(tmp_path, clock, monkeypatch):
    """The round ends between the copy of the database and that of the blobs."""
    from shoal.server import backup

    monkeypatch.setattr("shoal.server.routes_devices.INLINE_BYTES", 1)
    copied = []
    with serving(tmp_path / "home", clock) as served:
        task = served.publish(spec(rounds=2, goal=2)).id
        given = {name: served.check_in(name).assignment.id for name in ("bob", "alice")}
        assert served.report("bob", given["bob"], report_body(delta(1.0))).status_code == 200

        def copy_database(source, target, original=backup._copy_database):
            original(source, target)
            copied.append(target)
            if len(copied) == 1:
                assert served.report("alice", given["alice"], report_body(delta(3.0))).status_code == 200
                updates = tmp_path / "home" / "blobs" / "updates"
                until(served, task, lambda: not list(updates.glob("??/*")))

        monkeypatch.setattr(backup, "_copy_database", copy_database)
        manifest = back_up(tmp_path / "home", tmp_path / "copy")
        version = served.versions(task, after=0).versions[0]
    assert len(copied) == 2
    assert version.digest in {blob.digest for blob in manifest.blobs}
    assert {blob.namespace for blob in manifest.blobs} == {"published"}
    assert sorted(p.name for p in (tmp_path / "copy" / "blobs").glob("*/??/*")) == sorted(
        blob.digest for blob in manifest.blobs
    )


def test_a_home_that_lacks_its_model_is_not_copied(tmp_path, clock):
    with serving(tmp_path / "home", clock) as served:
        task = served.publish(spec(rounds=1, goal=1)).id
        train(served, task, range(1, 2))
        digest = served.versions(task).versions[-1].digest
    next((tmp_path / "home" / "blobs").glob(f"*/??/{digest}")).unlink()
    with pytest.raises(CorruptStore, match=digest):
        back_up(tmp_path / "home", tmp_path / "copy")
    assert not (tmp_path / "copy").exists()


@pytest.fixture
def copy(tmp_path, clock):
    with serving(tmp_path / "home", clock) as served:
        train(served, served.publish(spec(rounds=1, goal=1)).id, range(1, 2))
    back_up(tmp_path / "home", tmp_path / "copy", copy=True)
    return tmp_path / "copy"


@pytest.mark.parametrize("damaged", ["shoal.db", "blobs/published/??/*"])
def test_a_damaged_backup_is_not_restored(tmp_path, copy, damaged):
    path = next(copy.glob(damaged))
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 1
    path.write_bytes(data)
    with pytest.raises(CorruptStore, match="has the SHA-256"):
        restore(copy, tmp_path / "new")
    assert not (tmp_path / "new" / "shoal.db").exists()


def test_a_manifest_that_names_other_files_is_refused(tmp_path, copy):
    manifest = json.loads((copy / "backup.json").read_bytes())
    manifest["blobs"][0]["digest"] = "../../../etc/passwd"
    (copy / "backup.json").write_text(json.dumps(manifest))
    with pytest.raises(CorruptStore, match="no digests"):
        restore(copy, tmp_path / "new")
    (copy / "backup.json").write_text(json.dumps(manifest | {"format": 2, "blobs": []}))
    with pytest.raises(ConfigurationError, match="format 2"):
        restore(copy, tmp_path / "new")
    (copy / "backup.json").write_text("{")
    with pytest.raises(CorruptStore, match="cannot be read"):
        restore(copy, tmp_path / "new")


def test_nothing_is_overwritten(tmp_path, copy):
    (tmp_path / "new").mkdir()
    (tmp_path / "new" / "diary").write_text("dear")
    with pytest.raises(ConfigurationError, match="not empty"):
        restore(copy, tmp_path / "new")
    assert files(tmp_path / "new") == {"diary": b"dear"}
    with pytest.raises(ConfigurationError, match="exists already"):
        back_up(tmp_path / "home", copy)
    for wrong in (tmp_path, tmp_path / "none"):
        with pytest.raises(ConfigurationError, match="not the home"):
            back_up(wrong, tmp_path / "copy2")
        with pytest.raises(ConfigurationError, match="holds no backup"):
            restore(wrong, tmp_path / "new2")


def test_an_old_home_is_backed_up_as_it_is_and_migrated_after_restoring(tmp_path):
    home = old_home(tmp_path / "home")
    with closing(sqlite3.connect(home / "shoal.db")) as connection:
        connection.execute("DELETE FROM events WHERE position > 2")  # what is left needs no model
        connection.execute("UPDATE events SET data = replace(CAST(data AS TEXT), ?, '')", ("0" * 64,))
        connection.commit()
    manifest = back_up(home, tmp_path / "copy")
    assert manifest.revision == "0001"
    restore(tmp_path / "copy", tmp_path / "new")
    assert migrate(tmp_path / "new") == ("0001", REVISION)
    with closing(SqlStore(tmp_path / "new" / "shoal.db")) as store:
        assert [device.name for device in store.devices()] == ["bob", "alice"]


def test_a_home_in_use_is_not_migrated(tmp_path):
    home = old_home(tmp_path / "home")
    before = files(home)
    with sharing(home), sharing(home), pytest.raises(ConfigurationError, match="in use by a coordinator"):
        migrate(home)
    assert files(home) == before
    with alone(home), pytest.raises(ConfigurationError, match="being migrated"), sharing(home):
        pytest.fail("shared")
    assert migrate(home) == ("0001", REVISION)


def test_the_key_that_signs_receipts_comes_back(tmp_path):
    home = tmp_path / "home"
    with closing(SqlStore(home / "shoal.db")) as store:
        public = ReceiptKey.load(store).public
    back_up(home, tmp_path / "copy")
    restore(tmp_path / "copy", tmp_path / "new")
    with closing(SqlStore(tmp_path / "new" / "shoal.db")) as store:
        assert ReceiptKey.load(store).public == public

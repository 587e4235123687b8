"""A coordinator that keeps its home small, over HTTP and on a disk."""

import hashlib
import os
from contextlib import closing

import pytest

from shoal.server.limits import Limits
from shoal.store.blobs import FolderBlobs
from shoal.store.sql import SqlStore
from shoal.store.store import Entry
from shoal.testing.clock import ManualClock
from tests.server.conftest import delta, report_body, spec
from tests.server.homes import serving, train, until


def statuses(served, task):
    found = served.versions(task).versions
    return [served.client.get(f"/v1/blobs/{v.digest}", headers=served.people()).status_code for v in found]


def update(home, data, since, namespace="updates"):
    """Leave a blob in a home, as a crash does."""
    writer = FolderBlobs(home / "blobs").writer(namespace)
    writer.write(data)
    digest = writer.commit()
    (path,) = (home / "blobs").glob(f"*/??/{digest}")
    os.utime(path, (since, since))
    return path


def test_only_the_newest_versions_stay_and_the_first(tmp_path):
    with serving(tmp_path, ManualClock(), Limits(keep_versions=2)) as served:
        task = served.publish(spec(rounds=5, goal=1)).id
        train(served, task, range(1, 6))
        until(served, task, lambda: served.coordinator.housekeeping.removed == 3)
        assert statuses(served, task) == [200, 410, 410, 410, 200, 200]
        third = served.versions(task).versions[2]
        answer = served.client.get(f"/v1/blobs/{third.digest}", headers=served.people()).json()
        assert answer["code"] == "gone"
        assert answer["problem"].startswith("version 2 of plain-1 was removed")
        unknown = served.client.get(f"/v1/blobs/{'0' * 64}", headers=served.people())
        assert unknown.json()["code"] == "not_found"


def test_a_task_cannot_start_from_a_version_that_was_removed(tmp_path):
    with serving(tmp_path, ManualClock(), Limits(keep_versions=1)) as served:
        task = served.publish(spec(rounds=3, goal=1)).id
        train(served, task, range(1, 4))
        until(served, task, lambda: served.coordinator.housekeeping.removed == 2)
        first = served.versions(task).versions[1]
        import msgspec

        body = msgspec.json.encode(spec(name="again", initial=first.digest))
        answer = served.client.post("/v1/tasks", content=body, headers=served.people())
        assert (answer.status_code, answer.json()["code"]) == (410, "gone")


@pytest.mark.slow
def test_what_is_published_and_named_by_nothing_goes_after_an_hour(tmp_path):
    clock = ManualClock()
    with serving(tmp_path, clock) as served:
        task = served.publish(spec(rounds=2, goal=1)).id
        train(served, task, range(1, 2))
        sent = served.client.post("/v1/blobs", content=b"sent just now", headers=served.people()).json()["digest"]
    old = clock() - 7200
    for path in (tmp_path / "blobs" / "published").glob("??/*"):
        os.utime(path, (old, old))
    doomed = update(tmp_path, b"a model that no task began with", old, "published")
    fresh = update(tmp_path, b"a model that came", clock(), "published")
    (brought,) = (tmp_path / "blobs").glob(f"*/??/{sent}")
    with serving(tmp_path, clock, devices=served.devices) as again:
        until(again, task, lambda: again.coordinator.housekeeping.removed == 2)
        assert statuses(again, task) == [200, 200]
    assert (doomed.exists(), brought.exists(), fresh.exists()) == (False, False, True)


@pytest.mark.slow
def test_a_pinned_version_stays_until_it_is_unpinned(tmp_path):
    clock, limits = ManualClock(), Limits(keep_versions=1)
    with serving(tmp_path, clock, limits) as served:
        task = served.publish(spec(rounds=3, goal=1)).id
        train(served, task, range(1, 2))
        answer = served.client.put(f"/v1/tasks/{task}/pins/1", headers=served.people())
        assert answer.json() == {"task": task, "versions": [1]}
        train(served, task, range(2, 4))
        until(served, task, lambda: served.coordinator.housekeeping.removed == 1)
        assert statuses(served, task) == [200, 200, 410, 200]
        gone = served.client.put(f"/v1/tasks/{task}/pins/2", headers=served.people())
        assert (gone.status_code, gone.json()["code"]) == (410, "gone")
        none = served.client.put(f"/v1/tasks/{task}/pins/9", headers=served.people())
        assert (none.status_code, "its newest is 3" in none.json()["fix"]) == (404, True)
    with serving(tmp_path, clock, limits, served.devices) as again:
        listed = again.client.get(f"/v1/tasks/{task}/pins", headers=again.people())
        assert listed.json()["versions"] == [1]
        assert statuses(again, task) == [200, 200, 410, 200]
        again.client.delete(f"/v1/tasks/{task}/pins/1", headers=again.people())
        until(again, task, lambda: statuses(again, task) == [200, 410, 410, 200])


def test_a_viewer_cannot_pin(tmp_path):
    with serving(tmp_path, ManualClock()) as served:
        viewer = served.coordinator.identities.issue("viewer", 0.0)
        answer = served.client.put("/v1/tasks/plain-1/pins/0", headers=served.people(viewer))
        assert answer.status_code == 403


@pytest.mark.slow
def test_orphans_go_at_the_start_when_they_are_old(tmp_path):
    clock = ManualClock()
    old, young = update(tmp_path, b"old", clock() - 7200), update(tmp_path, b"young", clock() - 60)
    with serving(tmp_path, clock) as served:
        until(served, served.publish(spec()).id, lambda: not old.exists())
        assert young.exists()
        clock.advance(3600)
        until(served, "plain-1", lambda: not young.exists())


def test_small_updates_that_nothing_needs_go_too(tmp_path):
    clock = ManualClock()
    left = {hashlib.sha256(b"left").hexdigest(): b"left"}
    with closing(SqlStore(tmp_path / "shoal.db")) as store:
        store.submit(Entry("x", [], 0, 0, left)).result(30)
        assert [stored.size for stored in store.inline_stored()] == [4]
    with serving(tmp_path, clock) as served:
        store = served.coordinator.storage.store
        until(served, served.publish(spec()).id, lambda: not store.inline_stored())


@pytest.mark.parametrize("inline", [1 << 20, 1])
def test_an_update_that_still_counts_stays_however_old(tmp_path, monkeypatch, inline):
    monkeypatch.setattr("shoal.server.routes_devices.INLINE_BYTES", inline)
    clock = ManualClock()
    with serving(tmp_path, clock) as served:
        task = served.publish(spec(rounds=1)).id
        given = served.check_in("bob").assignment
        assert served.report("bob", given.id, report_body(delta(1.0))).status_code == 200
        for path in (tmp_path / "blobs" / "updates").glob("??/*"):
            os.utime(path, (0.0, 0.0))
    with serving(tmp_path, clock, Limits(grace=0.0), served.devices) as again:
        given = again.check_in("alice").assignment
        assert again.report("alice", given.id, report_body(delta(3.0))).status_code == 200
        (version,) = again.versions(task, after=0).versions
        assert version.reports == 2


def test_a_full_home_refuses_uploads_before_it_writes_them(tmp_path):
    clock = ManualClock()
    with serving(tmp_path, clock) as served:
        served.publish(spec())
        given = served.check_in("bob").assignment
    used = sum(path.stat().st_size for path in tmp_path.rglob("*") if path.is_file())
    with serving(tmp_path, clock, Limits(quota=used), served.devices) as full:
        before = sorted(tmp_path.rglob("*"))
        whole = full.client.post("/v1/blobs", content=bytes(100_000), headers=full.people())
        pieces = full.client.post("/v1/blobs", content=iter([bytes(50_000)] * 2), headers=full.people())
        report = full.report("bob", given.id, report_body(delta(1.0)))
        for answer in (whole, pieces, report):
            assert (answer.status_code, answer.json()["code"]) == (507, "storage_full")
            assert f"quota of {used}" in answer.json()["problem"]
            assert int(answer.headers["retry-after"]) > 0
        assert [path for path in sorted(tmp_path.rglob("*")) if path.is_file() and path not in before] == []
    with serving(tmp_path, clock, Limits(quota=used + 1_000_000), served.devices) as roomy:
        assert roomy.report("bob", given.id, report_body(delta(1.0))).status_code == 200


def test_a_report_that_counts_already_gets_its_receipt_from_a_full_home(tmp_path):
    clock = ManualClock()
    with serving(tmp_path, clock) as served:
        served.publish(spec())
        given = served.check_in("bob").assignment
        first = served.report("bob", given.id, report_body(delta(1.0)))
    with serving(tmp_path, clock, Limits(quota=1), served.devices) as full:
        assert full.report("bob", given.id, report_body(delta(1.0))).json() == first.json()


def test_room_is_made_before_an_upload_is_refused(tmp_path):
    clock = ManualClock()
    with serving(tmp_path, clock) as served:
        served.publish(spec())
    used = sum(path.stat().st_size for path in tmp_path.rglob("*") if path.is_file())
    with serving(tmp_path, clock, Limits(quota=used + 600_000)) as served:
        until(served, "plain-1", lambda: served.coordinator.housekeeping.space.room.used > 0)
        left = update(tmp_path, bytes(500_000), clock() - 7200)
        served.client.get("/metrics", headers=served.people())  # looks at the disk
        assert served.client.post("/v1/blobs", content=b"x" * 300_000, headers=served.people()).status_code == 200
        assert not left.exists()
        assert served.client.post("/v1/blobs", content=b"y" * 900_000, headers=served.people()).status_code == 507


def test_when_devices_called_is_known_after_a_restart(tmp_path):
    clock = ManualClock()
    with serving(tmp_path, clock) as served:
        served.check_in("bob")
        at = clock()
    clock.advance(50)
    with serving(tmp_path, clock) as again:
        (bob,) = again.client.get("/v1/devices", headers=again.people()).json()
        assert bob["last_seen"] == at

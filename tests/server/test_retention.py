"""What may be removed, decided from plain values."""

import pytest

from shoal.core.errors import ConfigurationError
from shoal.core.types import ModelVersion
from shoal.server.limits import Limits
from shoal.server.retention import Kept, expired, orphans
from shoal.store.store import Stored


def versions(*digests, checkpoints=True):
    made = [
        ModelVersion(n, digest, "", 0.0, f"c{digest}" if checkpoints and n else "") for n, digest in enumerate(digests)
    ]
    return made


def task(*digests, used=(), pinned=()):
    return Kept(versions(*digests), frozenset(used), frozenset(pinned))


def test_all_versions_stay_without_a_limit():
    assert expired([task("a", "b", "c", "d")], Limits()) == []


def test_the_newest_and_the_first_stay_with_their_checkpoints():
    assert expired([task("a", "b", "c", "d", "e")], Limits(keep_versions=2)) == ["b", "cb", "c", "cc"]


def test_one_version_is_the_least():
    assert expired([task("a", "b")], Limits(keep_versions=1)) == []
    with pytest.raises(ConfigurationError, match="keep_versions is 0"):
        Limits(keep_versions=0)


def test_a_pinned_version_stays():
    assert expired([task("a", "b", "c", "d", pinned=[1])], Limits(keep_versions=1)) == ["c", "cc"]


def test_what_a_device_trains_from_stays():
    assert expired([task("a", "b", "c", "d", used=["b"])], Limits(keep_versions=1)) == ["cb", "c", "cc"]


def test_bytes_that_another_version_or_task_shares_stay():
    same = Kept(versions("a", "b", "c", "b", checkpoints=False), frozenset(), frozenset())
    assert expired([same], Limits(keep_versions=1)) == ["c"]
    other = Kept(versions("c", "x", "y"), frozenset(), frozenset())
    assert expired([same, other], Limits(keep_versions=1)) == ["x", "cx"]
    named = Kept(versions("z"), frozenset({"x"}), frozenset())
    assert expired([same, other, named], Limits(keep_versions=1)) == ["cx"]


def test_each_digest_is_named_once():
    twice = Kept(versions("a", "b", "b", "c", checkpoints=False), frozenset(), frozenset())
    assert expired([twice], Limits(keep_versions=1)) == ["b"]


def test_orphans_are_what_nothing_needs_and_is_old():
    stored = [Stored("needed", 1, 0.0), Stored("old", 1, 10.0), Stored("young", 1, 99.0), Stored("ahead", 1, 500.0)]
    assert [blob.digest for blob in orphans(stored, {"needed"}, now=100.0, grace=60.0)] == ["old"]
    assert [blob.digest for blob in orphans(stored, set(), now=100.0, grace=0.0)] == ["needed", "old", "young"]

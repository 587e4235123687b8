"""Room in a home: what is let in, what is refused, and what counts while it arrives."""

import pytest

from shoal.core.errors import ConfigurationError, StorageFull
from shoal.server.limits import Limits
from shoal.server.space import Room, Space, measure


class Disk:
    def __init__(self, used=0, free=1000):
        self.room = Room(used, free)

    def __call__(self):
        return self.room


def test_a_home_may_fill_its_quota_and_no_more():
    space = Space(Disk(used=60), Limits(quota=100))
    with space.taking(40):
        assert not space.fits(1)
        with pytest.raises(StorageFull, match=r"1 bytes beside the 100 in the home .* quota of 100"), space.taking(1):
            pytest.fail("let in")


def test_a_reserve_stays_free():
    space = Space(Disk(free=100), Limits(reserve=30))
    with space.taking(70):
        pass
    with pytest.raises(StorageFull, match="would leave 29 free on the disk, 30 are kept"), space.taking(1):
        pytest.fail("let in")


def test_what_arrived_counts_until_the_next_look_and_then_as_measured():
    disk = Disk(used=50)
    space = Space(disk, Limits(quota=100))
    with space.taking(30):
        disk.room = Room(60, 1000)
        space.look()
        assert space.fits(10)
        assert not space.fits(11)
    assert not space.fits(11)
    disk.room = Room(80, 1000)
    space.look()
    assert space.fits(20)


def test_an_upload_of_unknown_length_is_stopped_where_it_grows_too_large():
    space = Space(Disk(), Limits(quota=100))
    with space.taking(1) as place:
        place.grow_to(100)
        place.grow_to(50)
        with pytest.raises(StorageFull):
            place.grow_to(101)
    assert space.look().used == 0
    assert space.fits(100)


def test_without_limits_everything_fits():
    assert Space(Disk(used=1 << 50, free=0), Limits()).fits(1 << 40)


def test_a_home_is_measured(tmp_path):
    (tmp_path / "a").mkdir()
    (tmp_path / "a" / "b").write_bytes(bytes(1000))
    (tmp_path / "c").write_bytes(bytes(24))
    room = measure(tmp_path)
    assert room.used == 1024
    assert room.free > 0


@pytest.mark.parametrize("limits", [{"quota": 0}, {"reserve": -1}, {"grace": -1.0}])
def test_limits_must_make_sense(limits):
    with pytest.raises(ConfigurationError):
        Limits(**limits)

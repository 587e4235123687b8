import pytest

from shoal.core.errors import Gone, StreamConflict, Unauthorised, Unavailable, Unreachable, from_code
from shoal.wire.backoff import Backoff, transient


def test_delays_double_up_to_the_most_and_begin_again():
    backoff = Backoff(0.2, 1.0, jitter=lambda: 0.0)
    assert [backoff.next() for _ in range(5)] == [0.2, 0.4, 0.8, 1.0, 1.0]
    backoff.reset()
    assert backoff.next() == 0.2


def test_jitter_takes_away_up_to_a_half():
    backoff = Backoff(0.2, 1.0, jitter=lambda: 1.0)
    assert [backoff.next() for _ in range(4)] == [0.1, 0.2, 0.4, 0.5]


def test_delays_stay_finite_however_often_it_fails():
    backoff = Backoff(jitter=lambda: 0.0)
    assert [backoff.next() for _ in range(3000)][-1] == 30.0


@pytest.mark.parametrize(
    ("error", "again"),
    [
        (Unreachable("", ""), True),
        (Unavailable("", ""), True),
        (StreamConflict("", ""), True),
        (from_code("of_a_later_version", "", ""), True),
        (Gone("", ""), False),
        (Unauthorised("", ""), False),
    ],
)
def test_what_may_go_well_later(error: Exception, again: bool):
    assert transient(error) is again

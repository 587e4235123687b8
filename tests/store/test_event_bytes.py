"""Events and snapshots as bytes: what was written reads back, everything else is refused."""

import json
from dataclasses import replace
from types import MappingProxyType

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from shoal.core.errors import CorruptStore
from shoal.core.serving import Canary
from shoal.rounds.events import CheckedIn, Committed, Published, Recorded, Reported, Ticked
from shoal.rounds.state import TaskState
from shoal.store.events import KINDS, decode, decode_state, encode, encode_state
from shoal.testing.stores import EVENTS, SPEC


def test_every_kind_of_event_is_known():
    assert {type(event).__name__ for event in EVENTS} == set(KINDS)


def plain(event):
    """Any mapping is read back as a dict."""
    return replace(event, metrics=dict(event.metrics)) if isinstance(event, Reported) else event


CANARIES = st.builds(
    Canary,
    fraction=st.floats(0, 1, exclude_min=True),
    metric=st.text(min_size=1),
    tolerance=st.floats(0, allow_infinity=False),
    devices=st.integers(2),
    minimum_rows=st.integers(1),
    deadline=st.floats(0, exclude_min=True, allow_infinity=False),
    refusals=st.integers(0),
)
st.register_type_strategy(Canary, CANARIES)
ANY = st.one_of(*(st.from_type(kind) for kind in KINDS.values() if kind is not Published)).map(plain)


@given(st.floats(0, 1e12), ANY)
def test_events_read_back_bit_for_bit(at, event):
    record = Recorded(at, event)
    # Compared by text, for which NaN is NaN, 1 is not 1.0 and -0.0 is not 0.0.
    assert repr(decode(encode(record))) == repr(record)


def test_a_task_reads_back_with_its_types():
    record = Recorded(1.5, Published("t-1", SPEC))
    found = decode(encode(record))
    assert found == record
    assert repr(found) == repr(record)


def test_numpy_floats_and_foreign_mappings_become_plain_ones():
    metrics = MappingProxyType({"loss": np.float64(0.25)})
    found = decode(encode(Recorded(0.0, Reported("a", "d", "0", 1, 1, metrics))))
    assert repr(found.event.metrics) == "{'loss': 0.25}"


def test_what_json_has_no_form_for_is_not_written():
    with pytest.raises(TypeError, match="ndarray"):
        encode(Recorded(0.0, CheckedIn(np.zeros(2))))


@pytest.mark.parametrize(
    ("data", "says"),
    [
        (b"", "no event"),
        (b"\xff\xfe", "no event"),
        (b"[" * 100_000, "no event"),
        (b"[]", "no event"),
        (b"{}", "no event"),
        (b'{"at":1.0,"kind":"Exploded","event":{}}', "'Exploded'"),
        (b'{"at":null,"kind":"Ticked","event":{}}', "'Ticked'"),
        (b'{"at":1.0,"kind":"CheckedIn","event":{}}', "CheckedIn .*`device`"),
        (b'{"at":1.0,"kind":"CheckedIn","event":{"device":5}}', "Expected `str`"),
    ],
)
def test_bytes_that_are_no_event_are_refused(data, says):
    with pytest.raises(CorruptStore, match=says):
        decode(data)


def test_an_event_that_breaks_its_own_rules_is_refused():
    data = json.loads(encode(Recorded(1.0, Published("t", SPEC))))
    data["event"]["spec"]["rounds"] = 0
    with pytest.raises(CorruptStore, match="rounds=0"):
        decode(json.dumps(data).encode())


def test_a_state_goes_on_from_its_snapshot_as_if_nothing_had_happened():
    state = TaskState.begin(Published("t", SPEC), 1.0)
    for device in ("zoe", "bob"):
        (assign,) = state.handle(CheckedIn(device), 2.0)
        state.handle(Reported(assign.assignment.id, device, "1" * 64, 9, 1 << 16, {"loss": float("inf")}), 3.0)
    again = decode_state(encode_state(state))
    assert again == state
    assert repr(again) == repr(state)
    for event in (Committed(1, 1, "2" * 64, ""), CheckedIn("bob"), Ticked()):
        assert again.handle(event, 4.0) == state.handle(event, 4.0)
    assert again == state


def test_bytes_that_are_no_snapshot_are_refused():
    with pytest.raises(CorruptStore, match="no snapshot"):
        decode_state(b"{")
    with pytest.raises(CorruptStore, match="TaskState"):
        decode_state(b"{}")

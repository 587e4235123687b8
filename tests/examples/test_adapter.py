"""The example runs, and its bytes are those of the adapter: the frozen base crosses the wire once for each owner."""

import importlib.util
from pathlib import Path

import pytest

EXAMPLE = Path(__file__).parents[2] / "examples" / "adapter.py"
OVERHEAD = 15_000
"""Bytes of headers, messages and the layout of the arrays that an owner exchanges in a round."""


@pytest.mark.processes
def test_after_the_first_round_only_the_adapter_travels():
    spec = importlib.util.spec_from_file_location("adapter", EXAMPLE)
    example = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(example)
    costs, sizes, (before, after) = example.main(rounds=4)
    base, adapter, owners = sizes[False], sizes[True], len(example.OWNERS)
    assert base > 90 * adapter
    # a report counts what was exchanged before it was sent, so a round's upload shows in the one after
    assert owners * base < costs[0].bytes_down < owners * (base + 4 * adapter + OVERHEAD)
    for cost in costs[1:]:
        assert owners * adapter <= cost.bytes_up < owners * (adapter + OVERHEAD)
        assert cost.bytes_down < owners * (2 * adapter + OVERHEAD)
    assert after < before / 2

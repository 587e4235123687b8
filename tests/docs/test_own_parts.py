"""The parts that own-parts.md shows keep their laws, and agree with the reference."""

import numpy as np
import pytest

from shoal.algorithms.registry import component
from shoal.core.roles import Role
from shoal.core.task import ArraySpec, RoundPlan, TaskSpec
from shoal.core.types import Update
from tests.docs.running import run


@pytest.mark.slow
def test_the_page(capsys: pytest.CaptureFixture[str]):
    names = run("own-parts.md")
    printed = capsys.readouterr().out.splitlines()
    assert printed[0] == "hasty-mean: order or grouping changes the result"
    number, loss = printed[-1].split()
    assert number == "5"
    assert float(loss) < 1
    spec = TaskSpec(
        "shown", {"w": ArraySpec((2,), "float32"), "n": ArraySpec((), "float32", Role.BUFFER)}, 1, RoundPlan(goal=1)
    )
    delta = {"w": np.float32([3, 4]), "n": np.float32(9)}  # by hand: a norm of 5, shortened to 1; buffers stay
    made = names["ShortenedMean"](1.0)
    added = made.finish(made.add(made.init(spec), Update("a", delta, 1 << 16)))["delta"]
    np.testing.assert_allclose(added["w"], [0.6, 0.8], rtol=1e-6)
    assert added["n"] == 9
    assert component(names["shortened"](0.5).aggregator).options == {"norm": 0.5}

"""The code that CONTRIBUTING.md shows does what it says."""

import re
from pathlib import Path
from typing import Any

import numpy as np

from shoal.algorithms.registry import component

PAGE = Path(__file__).parent.parent / "CONTRIBUTING.md"


def test_the_strategy_shown_works_and_is_short() -> None:
    [code] = re.findall(r"```python\n(.*?)```", PAGE.read_text(), re.DOTALL)
    shown: dict[str, Any] = {"__name__": "shown"}
    exec(code, shown)
    strategy = shown["clipped"](norm=0.5)
    moved, _ = strategy.server.step({"w": np.zeros(2, np.float32)}, {"w": np.array([3.0, 4.0])}, {})
    np.testing.assert_allclose(moved["w"], [0.3, 0.4], rtol=1e-6)
    assert component(strategy.server).options == {"norm": 0.5}
    body = code[code.index("@dataclass") :]
    assert len([line for line in body.splitlines() if line.strip()]) <= 20

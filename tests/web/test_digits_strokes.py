"""What the digits page makes of strokes: numbers like those of scikit-learn's digits."""

import json
import math
import subprocess
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from shoal.data import digits
from tests.web.browser import DEVICE, TOP, built, program

pytestmark = pytest.mark.processes

SCRIPT = """
    import { createRequire } from "node:module";
    const [device, source, out, drawings] = JSON.parse(process.argv[1]);
    const { build } = createRequire(`${device}/package.json`)("esbuild");
    await build({ entryPoints: [source], outfile: out, bundle: true, format: "esm", logLevel: "error" });
    const { SWAYS, numbersOf, swayed } = await import(out);
    const seen = (drawing) => [...numbersOf(drawing.map((stroke) => stroke.map(([x, y]) => ({ x, y }))))];
    const moved = (strokes) => SWAYS.map((sway) => [...numbersOf(swayed(strokes, sway))]);
    const points = (drawing) => drawing.map((stroke) => stroke.map(([x, y]) => ({ x, y })));
    console.log(JSON.stringify({ seen: drawings.map(seen), swayed: drawings.map((each) => moved(points(each))) }));
"""


def circle(x: float, y: float, size: float) -> list[list[list[float]]]:
    turns = [2 * math.pi * part / 40 for part in range(41)]
    return [[[x + 0.7 * size * math.sin(turn), y - size * math.cos(turn)] for turn in turns]]


DRAWINGS: dict[str, list[list[list[float]]]] = {
    "nothing": [],
    "a dot": [[[40, 40]]],
    "a one": [[[50, 10], [50, 90]]],
    "a zero": circle(50, 50, 40),
    "a small zero elsewhere": circle(200, 20, 10),
    "a dash": [[[10, 50], [90, 50]]],
    "a zero drawn over and over": [[point for _ in range(25) for point in circle(50, 50, 40)[0]]],
}


@pytest.fixture(scope="module")
def found(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    built()
    out = tmp_path_factory.mktemp("strokes") / "strokes.mjs"
    given = json.dumps([str(DEVICE), str(TOP / "web/digits/src/strokes.ts"), str(out), list(DRAWINGS.values())])
    command = [program("node"), "--input-type=module", "--eval", SCRIPT, given]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False, cwd=Path(DEVICE))
    assert done.returncode == 0, done.stderr
    got = json.loads(done.stdout)
    return {kind: dict(zip(DRAWINGS, map(np.array, got[kind]), strict=True)) for kind in ("seen", "swayed")}


def image(found: dict[str, Any], name: str) -> np.ndarray[Any, Any]:
    return found["seen"][name].reshape(8, 8)


def test_numbers_are_counts_of_ink(found):
    for name, numbers in found["seen"].items():
        assert set(np.unique(numbers)) <= set(range(17)), name
    assert not image(found, "nothing").any()
    assert image(found, "a dot").any()


def test_a_digit_fills_its_height_and_has_as_much_ink_as_theirs(found):
    theirs = digits()[0][:, 0].mean()
    for name in ("a one", "a zero", "a small zero elsewhere"):
        drawn = image(found, name)
        assert (drawn.sum(1) > 0).all(), name
        assert drawn.mean() / 16 == pytest.approx(theirs, abs=0.03), name
        assert drawn[:, [0, 7]].sum() == 0, name
        np.testing.assert_array_equal(drawn, drawn[:, ::-1], name)


def test_place_size_and_number_of_points_do_not_matter(found):
    zero = image(found, "a zero").astype(int)
    for name in ("a small zero elsewhere", "a zero drawn over and over"):
        assert np.abs(zero - image(found, name)).max() <= 2, name


def test_one_drawing_is_learnt_as_ten_that_differ_a_little(found):
    ways = found["swayed"]["a zero"]
    np.testing.assert_array_equal(ways[0], found["seen"]["a zero"])
    assert len(np.unique(ways, axis=0)) == 10
    assert np.abs(ways - ways[0]).mean() < 3

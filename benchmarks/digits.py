"""How well the digits demo knows digits that hands draw: `python benchmarks/digits.py --json`.

The hands are made up: outlines of ten digits in three or four styles each, turned, slanted, stretched and bent at
random. The page's own code (web/digits/src/strokes.ts, by node) makes numbers of them. Then, for drawings that the
first version takes for another digit: one correction on the device, and rounds with two owners; and how often the
device's own model would be the better one if it were compared on scikit-learn's digits alone.
"""

import argparse
import copy
import itertools
import json
import subprocess
import tempfile
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn

from shoal.demo.digits.rows import TARGET, dealt
from shoal.demo.digits.task import RATE, DigitNet, pretrained

TOP = Path(__file__).parents[1]
EACH = 60
CORRECTED = 24
ROUNDS = 3
HELD = (3, 7)
"""Of the ten ways in which a drawing is observed, those held out: one in five."""

SCRIPT = """
    import { createRequire } from "node:module";
    import { readFileSync } from "node:fs";
    const [top, out, drawings] = process.argv.slice(1);
    const { build } = createRequire(`${top}/web/device/package.json`)("esbuild");
    await build({ entryPoints: [`${top}/web/digits/src/strokes.ts`], outfile: out, bundle: true, format: "esm" });
    const { SWAYS, numbersOf, swayed } = await import(out);
    const points = (drawing) => drawing.map((stroke) => stroke.map(([x, y]) => ({ x, y })));
    const ways = (drawing) => SWAYS.map((sway) => [...numbersOf(swayed(points(drawing), sway))]);
    console.log(JSON.stringify(JSON.parse(readFileSync(drawings)).map(ways)));
"""

Points = list[tuple[float, float]]


def arc(x: float, y: float, wide: float, high: float, first: float, last: float) -> Points:
    turns = np.deg2rad(np.linspace(first, last, 30))
    return list(zip(x + wide * np.cos(turns), y + high * np.sin(turns), strict=True))


OUTLINES: dict[int, list[list[Points]]] = {
    0: [[arc(50, 50, 28, 42, -90, 270)], [arc(50, 50, 34, 40, -60, 300)], [arc(50, 50, 20, 42, -100, 260)]],
    1: [
        [[(50, 8), (50, 92)]],
        [[(35, 25), (52, 8), (52, 92)]],
        [[(35, 25), (52, 8), (52, 92)], [(32, 92), (72, 92)]],
        [[(12, 80), (58, 8), (58, 92)]],
    ],
    2: [
        [[*arc(50, 30, 26, 22, -170, 40), (25, 92), (80, 92)]],
        [[*arc(50, 28, 24, 20, -190, 60), (40, 70), (24, 90), (50, 84), (78, 92)]],
        [[(26, 22), (40, 9), (60, 9), (73, 24), (70, 42), (24, 92), (78, 92)]],
    ],
    3: [
        [[*arc(48, 28, 24, 20, -160, 90), *arc(48, 70, 28, 22, -90, 160)]],
        [[(25, 10), (74, 10), (46, 42), *arc(46, 68, 28, 24, -80, 150)]],
        [[*arc(50, 30, 22, 20, -140, 100), *arc(50, 70, 24, 20, -80, 140)]],
    ],
    4: [
        [[(60, 8), (20, 65), (82, 65)], [(62, 35), (62, 94)]],
        [[(28, 8), (24, 50), (76, 50)], [(72, 8), (70, 92)]],
        [[(62, 94), (62, 8), (18, 66), (84, 66)]],
    ],
    5: [
        [[(74, 10), (34, 10), (30, 46), *arc(48, 66, 28, 26, -120, 140)]],
        [[(32, 10), (30, 45), *arc(48, 66, 26, 26, -110, 150)], [(32, 10), (74, 8)]],
        [[(76, 9), (32, 9), (29, 44), (50, 38), (72, 52), (74, 74), (58, 91), (26, 86)]],
    ],
    6: [
        [[(66, 8), (44, 24), (30, 52), *arc(50, 68, 22, 24, 190, -170)]],
        [[(70, 12), (45, 14), (28, 45), *arc(51, 67, 24, 25, 180, -180)]],
        [[(58, 6), (34, 40), (27, 66), *arc(51, 70, 24, 22, 180, -170)]],
    ],
    7: [
        [[(24, 10), (76, 10), (44, 92)]],
        [[(24, 12), (76, 12), (62, 45), (50, 92)]],
        [[(26, 22), (26, 10), (76, 10), (46, 92)]],
        [[(24, 10), (76, 10), (44, 92)], [(36, 50), (72, 50)]],
    ],
    8: [
        [[*arc(50, 29, 21, 21, 90, -270), *arc(50, 71, 25, 22, -90, 270)]],
        [[(68, 16), (50, 8), (32, 20), (36, 36), (64, 58), (70, 78), (50, 92), (30, 80), (36, 60), (64, 38), (60, 10)]],
        [arc(50, 28, 20, 20, -90, 270), arc(50, 70, 24, 23, -90, 270)],
    ],
    9: [
        [[*arc(50, 31, 23, 23, 0, -360), (73, 31), (70, 60), (62, 93)]],
        [[*arc(52, 30, 22, 22, -20, -380), (72, 30), (72, 93)]],
        [[*arc(50, 32, 24, 24, 0, -360), (74, 40), (70, 75), (50, 92), (30, 86)]],
    ],
}


def dense(line: Points) -> np.ndarray[Any, Any]:
    """Return a line's points at most four apart."""
    corners = np.array(line, float)
    pieces = [corners[:1]]
    for start, end in itertools.pairwise(corners):
        parts = max(1, int(np.hypot(*(end - start)) / 4))
        pieces.append(start + (end - start) * np.arange(1, parts + 1)[:, None] / parts)
    return np.concatenate(pieces)


def by_hand(outline: list[Points], rng: np.random.Generator) -> list[list[list[float]]]:
    """Return an outline as a hand might draw it."""
    turn, slant = rng.normal(0, 0.1), rng.normal(0.05, 0.15)
    wide, high = np.exp(rng.normal(0, 0.15)), np.exp(rng.normal(0, 0.08))
    rotation = np.array([[np.cos(turn), -np.sin(turn)], [np.sin(turn), np.cos(turn)]])
    change = rotation @ np.array([[wide, -slant], [0, high]])
    size, waves, phase = rng.normal(0, 1.6, (2, 3)), rng.uniform(0.01, 0.035, 3), rng.uniform(0, 2 * np.pi, (2, 3))
    drawn = []
    for line in outline:
        points = dense(line) - 50
        along = np.stack([points.sum(1), points[:, 0] - points[:, 1]])[:, :, None]
        bent = points + (size[:, None] * np.sin(2 * np.pi * waves * along + phase[:, None])).sum(2).T
        drawn.append((bent @ change.T + 50 + rng.normal(0, 0.4, points.shape)).round(2).tolist())
    return drawn


def numbers(drawings: list[Any]) -> torch.Tensor:
    """Return what the page makes of drawings, [drawings, ways, 64]."""
    with tempfile.TemporaryDirectory() as folder:
        (Path(folder) / "drawings.json").write_text(json.dumps(drawings))
        given = [str(TOP), f"{folder}/strokes.mjs", f"{folder}/drawings.json"]
        command = ["node", "--input-type=module", "--eval", SCRIPT, *given]
        printed = subprocess.run(command, check=True, capture_output=True, text=True, timeout=600).stdout
    return torch.tensor(json.loads(printed), dtype=torch.float32)


def trained(net: DigitNet, x: torch.Tensor, y: torch.Tensor) -> DigitNet:
    """Return the network after the task's local plan."""
    net = copy.deepcopy(net)
    optimizer = torch.optim.Adam(net.parameters(), RATE)
    for _ in range(8):
        for places in torch.split(torch.randperm(len(x)), 16):
            optimizer.zero_grad()
            torch.autograd.backward(nn.functional.cross_entropy(net(x[places]), y[places]))
            optimizer.step()
    return net


def mean(nets: list[DigitNet], weights: list[int]) -> DigitNet:
    made = copy.deepcopy(nets[0])
    with torch.no_grad():
        for parameter, *others in zip(made.parameters(), *(net.parameters() for net in nets), strict=True):
            shares = torch.tensor(weights, dtype=torch.float32) / sum(weights)
            parameter.copy_(torch.tensordot(shares, torch.stack(others), 1))
    return made


@torch.no_grad()
def right(net: DigitNet, x: torch.Tensor, y: torch.Tensor) -> float:
    return float((net(x).argmax(1) == y).float().mean())


@torch.no_grad()
def loss(net: DigitNet, x: torch.Tensor, y: torch.Tensor) -> float:
    return float(nn.functional.cross_entropy(net(x), y))


def measure() -> dict[str, Any]:
    """Return the shares of right guesses: of other digits, by hand, after a correction, after each round."""
    torch.set_num_threads(1)
    torch.manual_seed(1)
    rng = np.random.default_rng(5)
    rows = dealt(2)
    first = pretrained(*rows.pretrained)
    y = torch.arange(10).repeat_interleave(EACH)
    drawings = [by_hand(styles[i % len(styles)], rng) for styles in OUTLINES.values() for i in range(EACH)]
    x = numbers(drawings)
    test = tuple(map(torch.from_numpy, rows.test))
    starting, labels = (torch.from_numpy(part) for part in rows.starting)
    owners = [
        (torch.from_numpy(t.features(TARGET)).float(), torch.from_numpy(t.target(TARGET)).long()) for t in rows.owners
    ]
    ways = [way for way in range(x.shape[1]) if way not in HELD]
    with torch.no_grad():
        wrong = (
            torch.nonzero(first(x[:, 0]).argmax(1) != y).flatten()[:: max(1, EACH // CORRECTED)][:CORRECTED].tolist()
        )
    corrected, others, better, after = [], [], [], [[] for _ in range(ROUNDS)]
    for place in wrong:
        own = torch.cat([starting[:80], x[place, ways]]), torch.cat([labels[:80], y[place].repeat(len(ways))])
        mine = trained(first, *own)
        corrected.append(right(mine, x[place, :1], y[place : place + 1]))
        others.append(right(mine, *test))
        better.append(loss(mine, starting[80:], labels[80:]) < loss(first, starting[80:], labels[80:]))
        everyone = first
        for number in range(ROUNDS):
            nets = [trained(everyone, *each) for each in (own, *owners)]
            everyone = mean(nets, [len(own[0]), *(len(each[0]) for each in owners)])
            after[number].append(right(everyone, x[place, :1], y[place : place + 1]))
    return {
        "test_accuracy": right(first, *test),
        "hand_accuracy": right(first, x[:, 0], y),
        "corrected": len(wrong),
        "right_on_the_device": float(np.mean(corrected)),
        "test_accuracy_on_the_device": float(np.mean(others)),
        "chosen_without_a_drawing_held_out": float(np.mean(better)),
        "right_for_everyone_after_round": [float(np.mean(each)) for each in after],
    }


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--json", action="store_true", help="print one object")
    parser.parse_args()
    print(json.dumps(measure()))

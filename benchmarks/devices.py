"""What training by plan costs on devices: Python's onnxruntime and the browser's (wasm) beside eager torch.

    python benchmarks/devices.py --json
    python benchmarks/devices.py --json --short    # two models and few steps: whether it runs, not how fast

Steps of 8 rows are counted by CPU second, one thread each, the three in turns; the figures are of all turns together,
once each way has taken many steps. `first_100_steps_cpu_s` is what each way takes for its first hundred: its runtime is
open, nothing has run yet (torch imports more at its first step). Eager torch is the plain loop: forward, backward,
torch.optim's step, the loss as a number. The model zoo is that of the tests, the Boston MLP and LeNet among them. Bytes
are those of gzip. An export counts tracing, writing, the golden step and the comparison with torch;
`export_imports_cpu_s` is what a process pays once. `page_load_to_first_step_ms` is wall time, from opening a page in
headless Chromium to its first training step, with an empty profile and again. `make browser` installs what it takes;
without Node or Chromium those figures are left out, and `left_out` says what is missing.
"""

import argparse
import gzip
import json
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from itertools import cycle
from pathlib import Path
from typing import Any

import numpy as np
import torch

TOP = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(TOP))

from tests.plan import zoo  # noqa: E402

from shoal.core.tree import encode  # noqa: E402
from shoal.plan.run import Plan, Training  # noqa: E402
from shoal.train.arrays import read_arrays, tensor  # noqa: E402
from shoal.train.optimizer import build  # noqa: E402

DEVICE = TOP / "web/device"
RUNTIME = DEVICE / "node_modules/onnxruntime-web/dist"
ROWS = 8
BATCHES = 16
TURNS = 5
FIRST = 100
STEPS = {"mlp": 1000, "lenet": 150}
SHORT = {"mlp": 20, "lenet": 4}
MODELS = {"mlp": "mlp-sgd", "lenet": "lenet"}

Steps = Callable[[int], float]
"""Takes so many steps and returns the CPU seconds that they took."""


@dataclass(frozen=True)
class Case:
    """One model of the zoo, exported, with batches of one size."""

    name: str
    plan: Plan
    params: Mapping[str, Any]
    batches: list[Mapping[str, Any]]


def export_all(names: Sequence[str]) -> tuple[dict[str, Plan], dict[str, float], float]:
    began = time.process_time()
    import shoal.plan

    shoal.plan.export(zoo.task(names[0]))
    plans, seconds = {}, {}
    imports = time.process_time() - began
    for name in names:
        task = zoo.task(name)
        began = time.process_time()
        plans[name] = shoal.plan.export(task)
        seconds[name] = round(time.process_time() - began, 2)
    return plans, seconds, round(imports - seconds[names[0]], 2)


def eager(case: Case) -> Steps:
    task = zoo.task(case.name)
    batches = cycle([{key: tensor(array) for key, array in batch.items()} for batch in case.batches])
    optimizer = build(task.plan.optimizer, task.model.parameters())

    def steps(many: int) -> float:
        began = time.process_time()
        for _ in range(many):
            batch = next(batches)
            optimizer.zero_grad()
            loss = task.loss(task.model(batch["x"]), batch["y"])
            loss.backward()
            optimizer.step()
            loss.item()
        return time.process_time() - began

    return steps


def by_plan(case: Case) -> Steps:
    training, batches = Training(case.plan, case.params, seed=1), cycle(case.batches)

    def steps(many: int) -> float:
        began = time.process_time()
        for _ in range(many):
            training.step(next(batches))
        return time.process_time() - began

    return steps


@contextmanager
def in_wasm(case: Case, folder: Path, node: str) -> Iterator[Steps]:
    write(case, folder)
    script = str(Path(__file__).with_name("devices_steps.mjs"))
    command = [node, script, f"{DEVICE}/dist", f"{RUNTIME}/", str(folder), case.name]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdin is not None
        assert process.stdout is not None
        told, heard = process.stdin, process.stdout
        assert json.loads(heard.readline()) == {"runtime": "wasm"}

        def steps(many: int) -> float:
            told.write(f"{many}\n")
            told.flush()
            return float(json.loads(heard.readline())["seconds"])

        yield steps
        told.close()


def write(case: Case, folder: Path) -> None:
    case.plan.save(folder / f"{case.name}.plan")
    arrays = {f"params/{name}": array for name, array in case.params.items()}
    batches = {f"batch/{i}/{key}": array for i, batch in enumerate(case.batches) for key, array in batch.items()}
    (folder / f"{case.name}.case").write_bytes(encode({**arrays, **batches}))


def in_turns(ways: Mapping[str, Steps], many: int) -> dict[str, float]:
    """Return steps per CPU second of each way, warm: a browser's compiler first improves what runs often."""
    for steps in ways.values():
        steps(max(0, 3 * many - FIRST))
    spent = {
        name: sum(each)
        for name, each in zip(ways, zip(*(turn(ways, many) for _ in range(TURNS)), strict=True), strict=True)
    }
    return {name: TURNS * many / seconds for name, seconds in spent.items()}


def turn(ways: Mapping[str, Steps], many: int) -> list[float]:
    return [steps(many) for steps in ways.values()]


def cold(ways: Mapping[str, Steps]) -> dict[str, float]:
    """Return the CPU seconds of each way's first steps, before anything was improved by running often."""
    return {name: round(steps(FIRST), 3) for name, steps in ways.items()}


def speeds(plans: Mapping[str, Plan], folder: Path, node: str | None, many: Mapping[str, int]) -> dict[str, Any]:
    found: dict[str, Any] = {}
    for short, name in MODELS.items():
        task = zoo.task(name)
        case = Case(name, plans[name], read_arrays(task.model, task.arrays), list(zoo.batches(name, BATCHES, ROWS)))
        ways = {"eager": eager(case), "ort": by_plan(case)}
        with ExitStack() as stack:
            if node is not None:
                ways["wasm"] = stack.enter_context(in_wasm(case, folder, node))
            first, rates = cold(ways), in_turns(ways, many[short])
        found[f"first_{FIRST}_steps_cpu_s_{short}"] = first
        found |= {f"{way}_steps_per_cpu_s_{short}": round(rate) for way, rate in rates.items()}
        found |= {f"{way}_vs_eager_{short}": round(rates[way] / rates["eager"], 2) for way in rates if way != "eager"}
    return found


def sdk_bytes() -> int:
    """Return what a page fetches of the device itself: all but the runtime, compressed."""
    files = [
        *(DEVICE / "dist" / f"{name}.js" for name in ("index", "worker", "service")),
        *(DEVICE / "dist").glob("shared-*.js"),
    ]
    return sum(len(gzip.compress(path.read_bytes(), 9)) for path in files)


def first_steps(folder: Path, node: str, chromium: str) -> dict[str, int]:
    given = {"device": str(DEVICE), "folder": str(folder), "name": MODELS["mlp"], "program": chromium}
    script = str(Path(__file__).with_name("devices_page.mjs"))
    done = subprocess.run(
        [node, script], input=json.dumps(given), capture_output=True, text=True, timeout=300, check=True
    )
    found: dict[str, int] = json.loads(done.stdout)
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--json", action="store_true", help="one JSON object on one line")
    parser.add_argument("--short", action="store_true", help="two models and few steps")
    given = parser.parse_args()
    torch.set_num_threads(1)
    built = (DEVICE / "dist/parts.js").exists() and RUNTIME.exists()
    node, chromium = (shutil.which(name) if built else None for name in ("node", "chromium"))
    plans, exports, imports = export_all(list(MODELS.values()) if given.short else list(zoo.ZOO))
    found: dict[str, Any] = {}
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        found |= speeds(plans, folder, node, SHORT if given.short else STEPS)
        found["plan_bytes_mlp"] = len(gzip.compress(plans[MODELS["mlp"]].encoded(), 9))
        found |= {"export_cpu_s": exports, "export_imports_cpu_s": imports}
        if built:
            found["sdk_bytes"] = sdk_bytes()
        if node is not None and chromium is not None:
            found["page_load_to_first_step_ms"] = first_steps(folder, node, chromium)
    missing = [what for what, there in (("make browser", built), ("node", node), ("chromium", chromium)) if not there]
    found |= {"left_out": missing, "torch": torch.__version__, "numpy": np.__version__}
    print(json.dumps(found) if given.json else json.dumps(found, indent=2))


if __name__ == "__main__":
    main()

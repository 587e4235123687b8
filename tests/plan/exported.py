"""The zoo as files that every language reads: each model's plan, its beginning, its batches, and what torch made of it.

`python tests/plan/exported.py FOLDER` writes them. The tests share one folder, named by the sources that it follows
from: every model is exported and trained by torch once, then trained again in Python, Node and Chromium.

NAME.plan is the plan. NAME.case is a tree: `params/ARRAY`, `batch/STEP/NAME`, `rate` and `loss` (one number a step),
`after/ARRAY`, `steady/ARRAY` (1 where an element is compared: one whose true gradient is 0 moves by rounding alone).
"""

import fcntl
import sys
from hashlib import sha256
from pathlib import Path

import numpy as np
import torch

import shoal.plan
from shoal.core.tree import Array, encode
from shoal.plan.proof import Reference
from shoal.plan.run import Plan
from shoal.train.arrays import read_arrays
from shoal.wire.codec import decode_tree
from tests.plan import zoo

TOP = Path(__file__).parents[2]
SOURCES = ("src/shoal/plan", "src/shoal/train", "src/shoal/core", "tests/plan/zoo.py", "tests/plan/exported.py")
STEPS = 30
SEED = 3


def folder() -> Path:
    """Return where the files of these sources are, or will be."""
    files = [path for source in SOURCES for path in _files(TOP / source)]
    text = "".join(f"{path} {sha256(path.read_bytes()).hexdigest()}\n" for path in sorted(files))
    return (
        TOP / ".pytest_cache" / "zoo" / sha256(f"{text}{torch.__version__}{np.__version__}".encode()).hexdigest()[:16]
    )


def _files(path: Path) -> list[Path]:
    return [path] if path.is_file() else list(path.rglob("*.py"))


def exported(name: str, into: Path | None = None) -> tuple[Plan, dict[str, Array]]:
    """Return a model's plan and case, made now if nobody has; another process that makes it is waited for."""
    into = into or folder()
    into.mkdir(parents=True, exist_ok=True)
    with (into / f"{name}.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not (into / f"{name}.case").exists():
            _make(name, into)
    return shoal.plan.load(into / f"{name}.plan"), decode_tree((into / f"{name}.case").read_bytes())


def _make(name: str, into: Path) -> None:
    torch.set_num_threads(1)  # models this small lose time to a second thread
    task = zoo.task(name)
    plan = shoal.plan.export(task)
    params = read_arrays(task.model, task.arrays)
    reference = Reference(task, params, plan.manifest, SEED)
    case: dict[str, Array] = {f"params/{key}": array for key, array in params.items()}
    losses = []
    for step, batch in enumerate(zoo.batches(name, STEPS, plan.manifest.rows)):
        case |= {f"batch/{step}/{key}": array for key, array in batch.items()}
        losses.append(reference.step(batch))
    local, lr = task.plan, plan.manifest.learning_rate
    case |= {"loss": np.asarray(losses), "rate": np.asarray([lr * local.per_step.at(step) for step in range(STEPS)])}
    for key, array in reference.arrays.items():
        steady = ~reference.rounding.get(key, np.zeros(array.shape, np.bool_))
        case |= {f"after/{key}": array, f"steady/{key}": steady.astype(np.uint8)}
    plan.save(into / f"{name}.plan")
    made = into / f"{name}.new"
    made.write_bytes(encode(case))
    made.replace(into / f"{name}.case")


if __name__ == "__main__":
    where = Path(sys.argv[1]) if len(sys.argv) > 1 else folder()
    for each in zoo.ZOO:
        exported(each, where)
    print(where)  # noqa: T201

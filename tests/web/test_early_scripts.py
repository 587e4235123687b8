"""The page's scripts against the Python whose numbers and bytes they repeat."""

import hashlib
import json
import subprocess
from pathlib import Path

import numpy as np
import pytest

from shoal.algorithms.local import adam, sgd
from shoal.core.rate import Rate
from shoal.core.seeds import derive, permutation
from shoal.core.task import ArraySpec, LocalPlan, RoundPlan, TaskSpec
from shoal.core.tree import Array, Tree, encode
from shoal.wire.messages import encode as encode_message
from tests.web.early import PAGE, program

pytestmark = pytest.mark.processes


def node(script: str, *arguments: object) -> object:
    """Run a module, with `page` the address of the scripts and `given` the arguments, and read what it prints."""
    text = f"const page = {json.dumps(PAGE.as_uri())};\nconst given = {json.dumps(arguments)};\n{script}"
    done = subprocess.run(
        [program("node"), "--input-type=module", "-"],
        input=text,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


def test_seeds_and_orders_are_pythons():
    parts = [[7, 3, "ann"], [0, 1, "Zoë-λ"], [2**53 - 1, 0], [12345, 6]]
    wanted = [(seed, rows) for seed in (0, 1, 2**32, 12345, 2**53 - 1) for rows in (0, 1, 2, 17, 135, 3000)]
    script = """
        const { derive, permutation } = await import(`${page}/seeds.js`);
        const seeds = await Promise.all(given[0].map((parts) => derive(...parts)));
        const orders = given[1].map(([seed, rows]) => permutation(seed, rows));
        console.log(JSON.stringify({ seeds, orders }));
    """
    got = node(script, parts, wanted)
    expected = {
        "seeds": [derive(*each) for each in parts],
        "orders": [permutation(seed, rows).tolist() for seed, rows in wanted],
    }
    assert got == expected


def tree() -> dict[str, Array]:
    rng = np.random.Generator(np.random.Philox(3))
    return {
        "weight": rng.standard_normal((3, 2), np.float32),
        "10": rng.standard_normal(5),
        "9": np.arange(3, dtype=np.int8),  # leaves what follows at an odd address
        "__proto__": np.array([2**62 + 1, -1], np.int64),
        "steps": np.array(7, np.int32),
        "empty": np.zeros((0, 4), np.float32),
        "mask": np.array([True, False]),
        'quo"te\\\n\x7f': np.array(1.5, np.float32),
        "\ufb01": np.float32([1]),  # before the next in code points, behind it in UTF-16
        "\U0001d538": np.float32([2]),
    }


def test_a_tree_read_and_written_has_the_same_bytes(tmp_path: Path):
    data = encode(tree())
    (tmp_path / "tree").write_bytes(data)
    script = """
        const { readFile } = await import("node:fs/promises");
        const { decode, digest, encode } = await import(`${page}/codec.js`);
        const tree = decode(new Uint8Array(await readFile(given[0])));
        // the names arrive sorted; they must also leave so from any order
        console.log(JSON.stringify(await digest(encode(new Map([...tree].reverse())))));
    """
    assert node(script, str(tmp_path / "tree")) == hashlib.sha256(data).hexdigest()


def damaged(given: Tree) -> dict[str, tuple[bytes, str]]:
    data = encode(given)
    return {
        "cut": (data[:-1], "array"),
        "too long": (data + b"\0", "cut or too long"),
        "hole": (data.replace(b'"data_offsets":[0,', b'"data_offsets":[8,'), "begins at byte 8"),
        "half": (data.replace(b'"F32"', b'"F16"', 1), "F16"),
        "large header": ((2**40).to_bytes(8, "little") + data[8:], "header of 1099511627776 bytes"),
    }


def test_damaged_files_are_refused(tmp_path: Path):
    cases = damaged({"a": np.float32([1, 2]), "b": np.float32([3])})
    for name, (data, _) in cases.items():
        (tmp_path / name).write_bytes(data)
    script = """
        const { readFile } = await import("node:fs/promises");
        const { decode } = await import(`${page}/codec.js`);
        const tried = given[0].map(async (path) => decode(new Uint8Array(await readFile(path))));
        const settled = await Promise.allSettled(tried);
        console.log(JSON.stringify(settled.map(({ reason }) => reason?.message ?? "taken")));
    """
    got = node(script, [str(tmp_path / name) for name in cases])
    assert isinstance(got, list)
    for (name, (_, says)), message in zip(cases.items(), got, strict=True):
        assert says in message, name


def test_rows_that_are_no_numbers_are_refused():
    script = """
        const { readRows, take } = await import(`${page}/rows.js`);
        const tried = given[0].map(async (text) => [...take(readRows(text, "y"), [1, 0]).x]);
        const settled = await Promise.allSettled(tried);
        console.log(JSON.stringify(settled.map(({ value, reason }) => value ?? reason.message)));
    """
    got = node(
        script, ["\ufeffa,y,b\r\n1,2,0.1\r\n3,4,5e-1\r\n", "a,y\n1,\n", "a,y\n1,2,3\n", "a,b\n1,2\n", "a,y\nNaN,2\n"]
    )
    no_row = "line 2 is no row of 2 numbers"
    assert got == [[3, 0.5, 1, 0.1], no_row, no_row, "no column y; the file has a, b", no_row]


def told(plan: LocalPlan, **changes: object) -> dict[str, object]:
    spec = TaskSpec("t", {"w": ArraySpec((2,), "float32")}, rounds=1, plan=RoundPlan(1), local=plan)
    told: dict[str, object] = json.loads(encode_message(spec))
    return {**told, **changes}


def test_tasks_that_the_step_does_not_fit_are_refused():
    plain = told(LocalPlan(optimizer=sgd(0.1)))
    local = plain["local"]
    assert isinstance(local, dict)
    cases = [
        (plain, ""),
        (told(LocalPlan(optimizer=adam())), "only plain SGD"),
        (told(LocalPlan(optimizer=sgd(0.1, momentum=0.9))), "only plain SGD is known here, not sgd momentum,0.9"),
        (told(LocalPlan(optimizer=sgd(0.1), proximal=0.5)), "penalty 0.5"),
        (told(LocalPlan(optimizer=sgd(0.1), clip_gradient=0.5)), "clip_gradient"),
        (told(LocalPlan(optimizer=sgd(0.1), per_step=Rate("cosine"))), "per_step"),
        ({**plain, "local": {**local, "start": "personal"}}, "training from a personal model"),
        ({**plain, "kind": "statistics"}, "only plain training"),
        ({**plain, "extra": {"control": {}}}, "only plain training"),
        ({**plain, "arrays": {"v": {}}}, "the step is for the arrays w; the task has v"),
    ]
    script = """
        const { unfit } = await import(`${page}/fit.js`);
        console.log(JSON.stringify(given[0].map((spec) => unfit(spec, { arrays: ["w"] }))));
    """
    got = node(script, [spec for spec, _ in cases])
    assert isinstance(got, list)
    for (_, says), reason in zip(cases, got, strict=True):
        assert says in reason
        assert bool(says) == bool(reason)


def test_a_runtime_that_computes_something_else_is_found():
    script = """
        const { array } = await import(`${page}/codec.js`);
        const { prove } = await import(`${page}/fit.js`);
        const single = (...values) => array("F32", [values.length], Float32Array.from(values));
        const golden = new Map([
          ["batch/x", array("F64", [1, 2], Float64Array.of(1, 2))],
          ["batch/y", array("F64", [1], Float64Array.of(3))],
          ["loss", array("F64", [], Float64Array.of(2))],
          ["delta/w", single(-1, 0.5)],
        ]);
        const start = new Map([["w", single(1, 1)]]);
        const tried = given[0].map(([loss, ...after]) => {
          const step = { run: async () => ({ loss, arrays: new Map([["w", single(...after)]]) }) };
          return prove(step, start, golden, 0.1).then(() => "", (error) => error.message);
        });
        console.log(JSON.stringify(await Promise.all(tried)));
    """
    right, loss, delta, none = node(script, [[2.0001, 0, 1.5], [2.1, 0, 1.5], [2, 0, 1.4], [None, 0, 1.5]])  # type: ignore[misc]
    assert right == ""
    assert "the loss 2.1, the task says 2" in loss
    assert "delta/w" in delta
    assert "the loss" in none

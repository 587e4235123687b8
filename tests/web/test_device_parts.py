"""The device in TypeScript against the Python whose numbers and bytes it repeats, and in a real coordinator's round."""

import gzip
import hashlib
import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

import shoal
import shoal.plan
from shoal.agent.examples import ExampleStore, Layout, Retention
from shoal.core.rate import cosine, exponential, stepped, warmup
from shoal.core.seeds import derive, permutation
from shoal.core.tree import encode
from shoal.plan.noise import uniform
from shoal.testing.server_process import ServerProcess
from shoal.wire.signing import as_key_type, check_body, load_key, read
from tests.web.browser import BUILT, DEVICE, RUNTIME, program
from tests.web.joined import regression

pytestmark = pytest.mark.processes


def node(script: str, *given: object, seconds: int = 120) -> object:
    """Run a module with the device's parts as `parts` and the arguments as `given`, and read what it prints."""
    assert (BUILT / "parts.js").exists(), "make browser"
    head = f"import * as parts from {json.dumps((BUILT / 'parts.js').as_uri())};\n"
    text = f"{head}const given = {json.dumps(given)};\n{script}"
    command = [program("node"), "--input-type=module", "-"]
    done = subprocess.run(command, input=text, capture_output=True, text=True, timeout=seconds, check=False)
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout.splitlines()[-1])


def test_seeds_orders_noise_and_rates_are_pythons():
    seeds = [[7, 3, "ann"], [2**53 - 1, 0], [0, 1, "Zoë-λ"]]
    orders = [(seed, rows) for seed in (0, 12345, 2**53 - 1) for rows in (0, 1, 17, 500)]
    drawn = [(5, 3, 1, 20), (2**53 - 1, 2**20, 4, 7)]
    rates = [exponential(0.9), stepped(3), cosine(5, 0.1), warmup(4, 0.2)]
    got = node(
        """
        console.log(JSON.stringify({
          seeds: await Promise.all(given[0].map((each) => parts.derive(...each))),
          orders: given[1].map(([seed, rows]) => parts.permutation(seed, rows)),
          drawn: given[2].map(([seed, step, index, size]) => [...parts.uniform(seed, step, index, size)]),
          rates: given[3].map((rate) => [0, 1, 2, 7].map((time) => parts.factor(rate, time))),
        }));
        """,
        seeds,
        orders,
        drawn,
        [{"kind": r.kind, "gamma": r.gamma, "period": r.period, "floor": r.floor} for r in rates],
    )
    assert got["seeds"] == [derive(*each) for each in seeds]
    assert got["orders"] == [permutation(*each).tolist() for each in orders]
    assert got["drawn"] == [uniform(s, t, i, (n,)).tolist() for s, t, i, n in drawn]
    assert got["rates"] == [pytest.approx([rate.at(time) for time in (0, 1, 2, 7)], abs=1e-15) for rate in rates]


def test_a_tree_read_and_written_has_the_same_bytes(tmp_path: Path):
    tree = {
        "10": np.arange(6, dtype=np.float64).reshape(2, 3),
        "9": np.arange(3, dtype=np.int8),  # leaves what follows at an odd address
        "__proto__": np.array([2**62 + 1, -1], np.int64),
        "steps": np.array(7, np.int32),
        "empty": np.zeros((0, 4), np.float32),
        "mask": np.array([True, False]),
        'quo"te\\\n\x7f': np.array(1.5, np.float32),
        "\ufb01": np.float32([1]),  # before the next in code points, behind it in UTF-16
        "\U0001d538": np.float32([2]),
    }
    (tmp_path / "tree").write_bytes(encode(tree))
    # the names arrive sorted; they must also leave so from any order
    script = """
        import { readFileSync, writeFileSync } from "node:fs";
        const tree = parts.decode(new Uint8Array(readFileSync(given[0])));
        writeFileSync(`${given[0]}.again`, parts.encode(new Map([...tree].reverse())));
        console.log("null");
    """
    node(script, str(tmp_path / "tree"))
    assert (tmp_path / "tree.again").read_bytes() == encode(tree)


def test_damaged_files_are_refused(tmp_path: Path):
    data = encode({"a": np.float32([1, 2]), "b": np.float32([3])})
    cases = {
        "cut": (data[:-1], "array"),
        "too long": (data + b"\0", "cut or too long"),
        "hole": (data.replace(b'"data_offsets":[0,', b'"data_offsets":[8,'), "begins at byte 8"),
        "half": (data.replace(b'"F32"', b'"F16"', 1), "F16"),
        "large header": ((2**40).to_bytes(8, "little") + data[8:], "header of 1099511627776 bytes"),
    }
    for name, (damaged, _) in cases.items():
        (tmp_path / name).write_bytes(damaged)
    script = """
        import { readFileSync } from "node:fs";
        const tried = given[0].map(async (path) => parts.decode(new Uint8Array(readFileSync(path))));
        const settled = await Promise.allSettled(tried);
        console.log(JSON.stringify(settled.map(({ reason }) => `${reason?.code} ${reason?.message}`)));
    """
    got = node(script, [str(tmp_path / name) for name in cases])
    for (name, (_, says)), message in zip(cases.items(), got, strict=True):
        assert message.startswith("tampered"), name
        assert says in message, name


def test_examples_stay_as_retention_says_and_the_same_ones_are_held_out(tmp_path: Path):
    script = """
        const { openFolder } = await import(given[1]);
        let now = 0;
        const layout = new Map([["x", { dtype: "F32", shape: [1] }]]);
        const open = async (retention) =>
          parts.Examples.open(await openFolder(given[0]), "ann", layout, { retention, clock: () => now });
        const seen = (examples) => [false, true].map((held) => [...(examples.rows(held).get("x")?.values ?? [])]);
        const examples = await open({ count: 10 });
        for (; now < 20; now += 1) await examples.add({ x: now + 1 });
        const newest = seen(examples);
        const again = seen(await open({ count: 10 }));
        now = 25;
        const young = seen(await open({ age: 7 }));
        const wrong = [{ x: [1, 2] }, { x: Number.NaN }, { y: 1 }];
        const refused = await Promise.all(wrong.map((each) => examples.add(each).catch((error) => error.code)));
        console.log(JSON.stringify({ newest, again, young, refused }));
    """
    got = node(script, str(tmp_path / "home"), (BUILT / "node.js").as_uri())
    seed = derive(0, "ann", "holdout")
    held = [5 * block + derive(seed, block) % 5 + 1 for block in range(4)]
    both = [[n for n in range(11, 21) if n not in held], [n for n in range(11, 21) if n in held]]
    assert got["newest"] == got["again"] == both
    assert got["young"] == [[n for n in part if n >= 19] for part in both]
    assert got["refused"] == ["data_error"] * 3


def test_several_examples_at_once_are_kept_as_one_by_one_and_all_or_none(tmp_path: Path):
    """As `shoal.Device.observe` keeps them: a leading axis makes several, and what is wrong with one keeps all away."""
    x = np.arange(48, dtype=np.float32).reshape(12, 2, 2)
    y = np.arange(12)
    layout = Layout({"x": ((2, 2), np.dtype(np.float32)), "y": ((), np.dtype(np.int64))})
    store = ExampleStore(tmp_path, "ann", retention=Retention(count=7))
    store.add(layout.batch({"x": x[:5], "y": y[:5]}))
    store.add(layout.batch({"x": x[5], "y": y[5]}))
    store.add(layout.batch({"x": x[6:], "y": y[6:]}))
    kept = [store.rows(held=held) for held in (False, True)]
    store.close()
    wrong = [
        {"x": x[:2].tolist(), "y": [1]},
        {"x": [x[0].tolist(), [[1, 2], [3]]], "y": [1, 2]},
        {"x": x[:2].tolist(), "y": [1, 0.5]},
        {"x": x[:2].ravel().tolist(), "y": [1, 2]},
    ]
    script = """
        const { openFolder } = await import(given[1]);
        const [x, y] = [given[2], given[3]];
        const layout = new Map([["x", { dtype: "F32", shape: [2, 2] }], ["y", { dtype: "I64", shape: [] }]]);
        const open = async () =>
          parts.Examples.open(await openFolder(given[0]), "ann", layout, { retention: { count: 7 } });
        const examples = await open();
        const refused = await Promise.all(given[4].map((each) => examples.add(each).catch(({ message }) => message)));
        await examples.add({ x: x.slice(0, 5), y: y.slice(0, 5) });
        await examples.add({ x: new Float32Array(x[5].flat()), y: y[5] });
        const last = x.slice(6).map((each) => new Float32Array(each.flat()));
        const whole = { dtype: "I64", shape: [6], values: BigInt64Array.from(y.slice(6), BigInt) };
        await examples.add({ x: last, y: whole });
        await examples.add({ x: { dtype: "F32", shape: [0, 2, 2], values: new Float32Array() }, y: [] });
        const part = (rows) => [...rows].map(([name, { values }]) => [name, [...values].map(Number)]);
        const seen = (from) => [false, true].map((held) => part(from.rows(held)));
        console.log(JSON.stringify({ refused, now: seen(examples), again: seen(await open()) }));
    """
    got = node(script, str(tmp_path / "home"), (BUILT / "node.js").as_uri(), x.tolist(), y.tolist(), wrong)
    assert got["now"] == got["again"] == [[[n, a.ravel().tolist()] for n, a in sorted(part.items())] for part in kept]
    words = ["rows of x 2,y 1", "rows of several shapes", "y holds fractions", "x of shape [8]"]
    for says, message in zip(words, got["refused"], strict=True):
        assert says in message


def test_conditions_that_do_not_hold_are_told():
    cases = [
        ({}, {}, 0, ["0 examples of 1"]),
        ({"minExamples": 3}, {}, 3, []),
        (
            {"charging": True, "unmetered": True},
            {"charging": False},
            1,
            ["not charging", "cannot tell whether unmetered"],
        ),
        ({"visible": True}, {"visible": True}, 1, []),
        ({"battery": 0.3}, {"battery": 0.2}, 1, ["a charge of 20%, below 30%"]),
        ({"battery": 0.3}, {}, 1, ["an unknown charge, below 30%"]),
    ]
    script = "console.log(JSON.stringify(given[0].map(([asked, told, rows]) => parts.unmet(asked, told, rows))));"
    assert node(script, [case[:3] for case in cases]) == [case[3] for case in cases]


def test_a_call_is_signed_as_the_coordinator_reads_it():
    script = """
        const key = await parts.newKey();
        const body = new TextEncoder().encode("what is sent");
        const headers = await parts.signed(key, { method: "POST", target: "/v1/a?b=1", body }, 1700000000.25);
        console.log(JSON.stringify({ headers, kind: key.kind, publicKey: key.publicKey }));
    """
    got = node(script)
    headers = got["headers"]
    signature = read(headers["Signature-Input"], headers["Signature"], headers["Content-Digest"])
    signature.check(load_key(as_key_type(got["kind"]), got["publicKey"]), "POST", "/v1/a", "b=1")
    assert signature.created == 1700000000.25
    check_body(signature.digest, hashlib.sha256(b"what is sent").digest())


def test_the_device_stays_small():
    """All that a page loads of it, without the runtime."""
    files = [BUILT / name for name in ("index.js", "worker.js", "service.js")] + sorted(BUILT.glob("shared-*.js"))
    assert sum(len(gzip.compress(file.read_bytes())) for file in files) < 30_000


def test_the_types_of_messages_are_those_of_the_coordinator(tmp_path: Path):
    """`npm run messages` writes src/messages.ts anew."""
    document, types = tmp_path / "openapi.json", tmp_path / "messages.ts"
    with document.open("w") as file:
        subprocess.run([sys.executable, str(DEVICE / "openapi.py")], stdout=file, check=True, timeout=60)
    tool = DEVICE / "node_modules/openapi-typescript/bin/cli.js"
    command = [
        program("node"),
        str(tool),
        str(document),
        "--root-types",
        "--root-types-no-schema-prefix",
        "-o",
        str(types),
    ]
    subprocess.run(command, capture_output=True, check=True, timeout=60)
    assert types.read_text() == (DEVICE / "src/messages.ts").read_text(), "src/messages.ts is stale"


def test_a_runtime_that_computes_something_else_gives_way_to_the_next(tmp_path: Path):
    task, _, _ = regression()
    shoal.plan.export(task).save(tmp_path / "plan")
    script = """
        import { readFileSync } from "node:fs";
        const plan = parts.readPlan(new Uint8Array(readFileSync(`${given[0]}/plan`)));
        const [good] = await parts.runtimes({ from: given[1] });
        const changed = (name, change) => ({
          name,
          open: async (graph) => {
            const opened = await good.open(graph);
            const run = async (inputs) => {
              const found = await opened.run(inputs);
              change(found);
              return found;
            };
            return { inputs: opened.inputs, run };
          },
        });
        const wrong = [
          changed("loss", (found) => (found.get("loss") ?? { values: [] }).values[0] *= 1.01),
          changed("step", (found) => found.get("after/array/0.weight")?.values.fill(0)),
          changed("output", (found) => found.get("output") && (found.get("output").values[0] += 1)),
          { name: "lacking", open: async () => { throw new Error("no such operator"); } },
        ];
        const runtime = (await parts.proved(plan, [...wrong, good])).runtime.name;
        const failed = await parts.proved(plan, wrong).catch((error) => error);
        console.log(JSON.stringify({ runtime, code: failed.code, message: failed.message }));
    """
    got = node(script, str(tmp_path), f"{RUNTIME}/")
    assert (got["runtime"], got["code"]) == ("wasm", "runtime_mismatch")
    for name in ("loss: ", "step: ", "output: ", "lacking: no such operator"):
        assert name in got["message"]


@pytest.mark.parametrize(("source", "runtime"), [(f"{RUNTIME}/", "wasm"), ("", "cpu")], ids=["wasm", "native"])
def test_a_plan_trains_as_in_python(tmp_path: Path, source: str, runtime: str):
    """With WebAssembly, and with native code where Node has onnxruntime-node."""
    task, x, y = regression()
    plan = shoal.plan.export(task)
    plan.save(tmp_path / "plan")
    params = {name: value.detach().numpy() for name, value in task.model.named_parameters()}
    (tmp_path / "params").write_bytes(encode(params))
    (tmp_path / "rows").write_bytes(encode({"x": x, "y": y}))
    orders = [permutation(derive(77, epoch), 40) for epoch in range(2)]
    batches = [(x[order[i : i + 8]], y[order[i : i + 8]]) for order in orders for i in range(0, 40, 8)]
    after, _ = plan.train(params, batches, seed=77)
    script = """
        import { readFileSync } from "node:fs";
        const read = (name) => new Uint8Array(readFileSync(`${given[0]}/${name}`));
        const opened = await parts.proved(parts.readPlan(read("plan")), await parts.runtimes({ from: given[1] }));
        const rate = { kind: "constant", gamma: 1, period: 1, floor: 0 };
        const course = { epochs: 2, batch_size: 8, shuffle: true, lr: 1e-2, per_step: rate };
        const done = await parts.train(opened, course, parts.decode(read("params")), parts.decode(read("rows")), 77);
        const arrays = Object.fromEntries([...done.arrays].map(([name, { values }]) => [name, [...values]]));
        console.log(JSON.stringify({ runtime: opened.runtime.name, arrays, rows: done.rows }));
    """
    got = node(script, str(tmp_path), source)
    assert (got["runtime"], got["rows"]) == (runtime, 40)
    for name, value in after.items():
        assert np.asarray(got["arrays"][name]) == pytest.approx(value.reshape(-1), rel=1e-5, abs=1e-6)


def test_a_device_in_node_takes_part_and_gets_the_version(tmp_path: Path):
    task, x, y = regression()
    script = """
        const { openFolder } = await import(given[3]);
        const { Device } = await import(given[4]);
        const kept = await openFolder(given[2]);
        const settings = { task: "line", token: given[1], name: "node", kept };
        const device = await Device.join(given[0], settings);
        const events = [];
        device.on("accepted", ({ round }) => events.push(round));
        for (let row = 0; row < given[5].length; row += 1) await device.observe(given[5][row], given[6][row]);
        const better = await device.personalise();
        const accepted = await device.sync();
        while ((await device.status()).version === 0) await device.sync(); // the version is made after the receipt
        const status = await device.status();
        const output = [...(await device.predict(given[5][0])).values];
        await device.leave();
        console.log(JSON.stringify({ events, better, accepted, status, output }));
        process.exit(0);
    """
    with ServerProcess(tmp_path / "home", tmp_path / "log") as server:
        server.start()
        with shoal.Coordinator.connect(server.url, token=server.admin_token) as coordinator:
            run = coordinator.publish(task, rounds=1, goal=1)
            got = node(
                script,
                server.url,
                server.enrolment_token,
                str(tmp_path / "device"),
                (BUILT / "node.js").as_uri(),
                (BUILT / "index.js").as_uri(),
                x.tolist(),
                y.tolist(),
            )
            (version,) = run.follow()
            (device,) = coordinator.devices()
    assert (got["events"], got["accepted"], got["status"]["version"]) == ([1], True, 1)
    assert got["better"]["kept"]
    assert (version.number, version.reports, device.revoked is not None) == (1, 1, True)
    assert np.isfinite(got["output"]).all()

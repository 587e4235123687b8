"""The device in TypeScript in real Chromium: pages take part in the rounds of a real coordinator."""

import base64
import re
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import replace
from hashlib import sha256
from pathlib import Path
from threading import Event
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

import shoal
from shoal.agent.agent import Agent
from shoal.agent.data import ArrayData
from shoal.agent.home import AgentHome
from shoal.algorithms import registry
from shoal.algorithms.strategy import advance, trainable
from shoal.core.seeds import derive
from shoal.core.task import TaskSpec
from shoal.core.tree import Tree, digest
from shoal.core.types import Update
from shoal.plan.run import Plan
from shoal.testing.server_process import ServerProcess
from shoal.train.data import ClientData
from shoal.train.loop import LoopTrainer
from shoal.wire.codec import decode_tree, head_length, read_head, split_trees
from shoal.wire.messages import ReportHead
from tests.web.browser import ELSEWHERE, TOP, Page
from tests.web.joined import FAILURE, OBSERVE, OPEN, ROWS, STEPS, TASK, X, Y, again, counted, user

pytestmark = pytest.mark.processes

SEED = 7
QUOTA = 125_000


def test_a_page_joins_observes_predicts_personalises_and_syncs(server, browser, rounds):
    page = user(browser, server, "ann", "rounds")
    script = f"""
        const accepted = [];
        device.on("accepted", ({{ round }}) => accepted.push(round));
        {OBSERVE}
        const losses = [];
        const better = await device.personalise({{ onStep: (step, loss) => losses.push(loss) }});
        const synced = await device.sync();
        while ((await device.status()).version === 0) await device.sync(); // made after the receipt
        const output = [...(await device.predict(x[0])).values];
        return {{ accepted, better, synced, losses, output, status: await device.status() }};
    """
    got = page.do(script, **ROWS)
    assert (got["accepted"][0], got["synced"]) == (1, True)
    assert got["better"]["kept"]
    assert len(got["losses"]) == STEPS
    assert np.isfinite(got["output"]).all()
    assert got["status"]["runtime"] == "wasm"
    assert (got["status"]["examples"], got["status"]["heldOut"], got["status"]["problem"]) == (40, 8, "")
    assert page.run("return kept[name].problems;") == []
    page.close()


def test_a_tab_that_is_loaded_anew_while_it_trains_counts_once(server, browser, coordinator, rounds):
    page = user(browser, server, "ben", "rounds")
    before = counted(coordinator, rounds)
    page.do(OBSERVE, **ROWS)
    page.run(
        """
        const { page } = kept[name];
        const loaded = page.waitForEvent("load");
        await page.evaluate(() => {
          device.on("progress", ({ step }) => step === 3 && location.reload());
          device.sync();
        });
        await loaded;
        """
    )
    assert page.calls("/report") == []
    again(page, "rounds")
    assert page.do("return device.sync();")
    assert len(page.calls("/report")) == 1
    assert counted(coordinator, rounds) == before + 1
    page.close()


def test_training_leaves_the_page_smooth_and_stops_at_a_signal(server, browser, rounds):
    page = user(browser, server, "cleo", "rounds")
    script = f"""
        {OBSERVE}
        let ticks = 0;
        const {{ port1, port2 }} = new MessageChannel();
        port1.onmessage = () => {{
          ticks += 1;
          port2.postMessage(null);
        }};
        port2.postMessage(null);
        const seen = [];
        const first = [];
        const stop = new AbortController();
        await device.personalise({{ onStep: () => seen.push(ticks) }});
        const onStep = (step) => {{
          first.push(step);
          if (step === 3) stop.abort("enough");
        }};
        const stopped = await device.personalise({{ signal: stop.signal, onStep }}).catch({FAILURE});
        const {{ personalLoss }} = await device.status();
        port1.close();
        return {{ seen, stopped, steps: first.length, ticks, personalLoss }};
    """
    got = page.do(script, **ROWS)
    # between two turns of the page's own thread lie few steps, however busy the machine is
    gaps = np.unique(got["seen"], return_counts=True)[1]
    assert len(got["seen"]) == STEPS
    assert gaps.max() <= STEPS / 4
    assert (got["stopped"]["name"], got["stopped"]["code"]) == ("Stopped", "stopped")
    assert "enough" in got["stopped"]["message"]
    assert 3 <= got["steps"] < STEPS
    assert got["personalLoss"] is not None  # that of the training before
    page.close()


def test_a_device_without_a_network_goes_on_and_its_update_is_counted_once(server, browser, coordinator, rounds):
    page = user(browser, server, "dora", "rounds", service="device/service.js")
    before = counted(coordinator, rounds)
    cut = f"""
        {OBSERVE}
        const registration = await navigator.serviceWorker.getRegistration();
        const worker = registration.active ?? registration.installing ?? registration.waiting;
        while (worker.state !== "activated") {{
          await new Promise((resolve) => worker.addEventListener("statechange", resolve));
        }}
    """
    page.do(cut, **ROWS)
    page.reload()
    again(page, "rounds", service="device/service.js")
    page.run(
        """
        const { page, context } = kept[name];
        await page.route("**/v1/assignments/*/report", async (route) => {
          await context.setOffline(true);
          await route.abort("internetdisconnected");
        });
        """
    )
    failed = page.do(f"return device.sync().then(String, {FAILURE});")
    assert failed["code"] == "unreachable"
    page.run("await kept[name].page.unroute('**/v1/assignments/*/report');")
    page.reload()
    again(page, "rounds", service="device/service.js")
    script = "return { status: await device.status(), output: [...(await device.predict(x[0])).values] };"
    got = page.do(script, **ROWS)
    assert (got["status"]["pending"], got["status"]["released"]) == (1, 1)
    assert "no answer" in got["status"]["problem"]
    assert np.isfinite(got["output"]).all()
    page.do("globalThis.heard = new Promise((resolve) => device.on('accepted', resolve));")
    # what Background Sync does when a network is back: the service worker sends, and the page hears of it
    page.run(
        """
        const { context, page } = kept[name];
        const devtools = await context.newCDPSession(page);
        const registered = new Promise((resolve) =>
          devtools.on("ServiceWorker.workerRegistrationUpdated", ({ registrations }) => registrations.map(resolve)),
        );
        await devtools.send("ServiceWorker.enable");
        const { registrationId } = await registered;
        await context.setOffline(false);
        await devtools.send("ServiceWorker.dispatchSyncEvent", { origin: given[0], registrationId, ...given[1] });
        """,
        server.url,
        {"tag": "shoal-rounds", "lastChance": False},
    )
    assert page.do("return (await heard).accepted;") > 0
    assert page.do("return (await device.status()).pending;") == 0
    assert counted(coordinator, rounds) == before + 1
    page.close()


def test_a_full_disk_is_told_and_nothing_is_half_kept(server, browser, rounds):
    page = Page(browser, "emil", f"{server.url}/page/")
    quota = """
        kept[name].devtools ??= await kept[name].context.newCDPSession(kept[name].page);
        await kept[name].devtools.send("Storage.overrideQuotaForOrigin", { origin: given[0], ...given[1] });
    """
    page.run(quota, server.url, {"quotaSize": QUOTA})
    page.do(OPEN, settings={"task": "rounds", "token": server.enrolment_token, "name": "emil"})
    script = f"""
        let [observed, failed] = [0, null];
        for (; failed === null && observed < 5000; observed += failed === null) {{
          failed = await device.observe(x[observed % 40], y[observed % 40]).then(() => null, {FAILURE});
        }}
        const synced = await device.sync().catch({FAILURE});
        return {{ observed, failed, synced, status: await device.status() }};
    """
    got = page.do(script, **ROWS)
    assert got["failed"]["code"] == got["synced"]["code"] == "storage_full"
    assert got["observed"] == got["status"]["examples"] > 10
    assert (got["status"]["pending"], got["status"]["released"]) == (0, 0)
    page.reload()  # what is there is whole
    again(page, "rounds")
    assert page.do("return (await device.status()).examples;") == got["observed"]
    page.run(quota, server.url, {})
    page.do("await device.observe(x[0], y[0]);", **ROWS)
    assert page.do("return device.sync();")
    page.close()


def test_a_revoked_device_is_told_and_predicts_on(server, browser, coordinator, rounds):
    page = user(browser, server, "fay", "rounds")
    page.do(OBSERVE, **ROWS)
    coordinator.access.revoke("fay")
    script = f"""
        const synced = await device.sync().catch({FAILURE});
        const ended = new Promise((resolve) => device.on("error", resolve));
        device.run();
        await ended;
        await device.stop();
        return {{ synced, problem: (await device.status()).problem, output: [...(await device.predict(x[0])).values] }};
    """
    got = page.do(script, **ROWS)
    assert (got["synced"]["name"], got["synced"]["status"]) == ("Refused", 401)
    assert "revoked" in got["problem"]
    assert np.isfinite(got["output"]).all()
    page.close()


def test_a_tampered_plan_and_a_tampered_golden_step_are_not_used(server, browser, coordinator, rounds):
    plan = coordinator.plan(rounds.id)
    golden = {**plan.golden, "loss": plan.golden["loss"] * np.asarray(1.5, plan.golden["loss"].dtype)}
    forged = Plan(plan.manifest, plan.graphs, golden)
    cases = {
        # the same digest, other bytes; and a plan that is what its digest says, but no runtime computes
        "gus": (plan.digest, plan.encoded()[:-1] + b"\0", "tampered"),
        "hal": (forged.digest, forged.encoded(), "runtime_mismatch"),
    }
    for name, (served, body, code) in cases.items():
        page = Page(browser, name, f"{server.url}/page/")
        page.run(
            """
            const { page } = kept[name];
            const [told, served, body] = given;
            await page.route(`**/v1/blobs/${served}`, (route) => route.fulfill({ body: Buffer.from(body, "base64") }));
            await page.route("**/v1/tasks/*", async (route) => {
              const response = await route.fetch();
              await route.fulfill({ response, body: (await response.text()).replaceAll(told, served) });
            });
            """,
            plan.digest,
            served,
            base64.b64encode(body).decode(),
        )
        settings = {"task": "rounds", "token": server.enrolment_token, "name": name}
        joined = OPEN.replace("window.device =", "return await").rstrip()
        failed = page.do(
            f"const join = async () => {{ {joined} }};\nreturn join().then(() => null, {FAILURE});", settings=settings
        )
        assert failed["code"] == code, failed
        assert page.calls("/checkin") == []
        assert [call["status"] for call in page.calls("/unfit")] == [200]
        page.close()
    steps = coordinator.heads(rounds.id).steps
    told = {step.by: step.reason for step in steps if step.what == "refused by a device"}
    assert told["gus"].startswith("tampered")
    assert told["hal"].startswith("runtime_mismatch")


def wide() -> tuple[shoal.Task, dict[str, Any]]:
    """Return a task whose updates travel in three parts, and rows for it."""
    torch.manual_seed(0)
    rng = np.random.default_rng(2)
    x = rng.normal(size=(12, 800)).astype(np.float32)
    y = x[:, ::-1].copy()
    task = shoal.Task(
        name="wide",
        model=nn.Linear(800, 800),
        loss=nn.functional.mse_loss,
        local=shoal.LocalPlan(epochs=1, batch_size=4, optimizer=shoal.sgd(lr=1e-2)),
        strategy=shoal.fedavg(),
        example=(x[:4], y[:4]),
    )
    return task, {"x": x.tolist(), "y": y.tolist()}


def test_an_upload_goes_on_in_another_tab_and_counts_once(server, browser, coordinator):
    task, rows = wide()
    run = coordinator.publish(task, rounds=1, goal=1, plan=True)
    page = user(browser, server, "ida", "wide", minimumRows=1)
    page.do(OBSERVE, **rows)
    page.run(
        """
        const { page } = kept[name];
        let parts = 0;
        const held = new Promise((resolve) =>
          page.route("**/upload", (route) => {
            if (route.request().method() === "PATCH" && (parts += 1) === 2) return resolve(); // never sent on
            return route.continue();
          }),
        );
        await page.evaluate(() => void device.sync());
        await held;
        await page.close();
        """
    )
    first = [call["offset"] for call in page.calls("/upload") if call["method"] == "PATCH"]
    page.open()
    again(page, "wide", minimumRows=1)
    page.do("while ((await device.releases()).some(({ accepted }) => !accepted)) await device.sync();")
    parts = [call["offset"] for call in page.calls("/upload") if call["method"] == "PATCH"][len(first) :]
    # what the closing tab had begun to send may have arrived
    assert first == ["0"]
    assert parts[:2] in ([str(1 << 20), str(2 << 20)], [str(2 << 20)])
    (version,) = run.follow(within=60.0)
    assert (version.number, version.reports) == (1, 1)
    report = next(call for call in page.calls("/report") if call["status"] == 200)
    head = read_head(base64.b64decode(report["body"])[4:])
    assert (head.uploaded, head.size > 2 << 20) == (True, True)
    page.close()


def test_two_tabs_are_one_device(server, browser, rounds):
    page = user(browser, server, "kim", "rounds")
    page.run("kept.kims = kept[name].page;")
    page.open()
    again(page, "rounds")
    observe = "for (let row = 0; row < 20; row += 1) await device.observe(x[row], y[row]);"
    status = """
        const { name, examples, heldOut, running } = await device.status();
        return { name, examples, heldOut, running };
    """
    both = """
        const [script, rows] = given;
        const run = (page) => page.evaluate(`(async ({ x, y }) => {${script}})(${JSON.stringify(rows)})`);
        return Promise.all([kept.kims, kept[name].page].map(run));
    """
    page.run(both, observe, ROWS)
    first, second = page.run(both, status, ROWS)
    assert first == second
    assert (first["name"], first["examples"], first["heldOut"]) == ("kim", 40, 8)
    page.run("await kept.kims.evaluate(() => device.personalise());")
    losses = "const { personalLoss } = await device.status();\nreturn personalLoss;"
    one, other = page.run(both, losses, ROWS)
    assert one == other is not None
    script = """
        const [first, second] = [kept.kims, kept[name].page];
        const conditions = { battery: 2 }; // never holds
        await first.evaluate((conditions) => device.run(conditions), conditions);
        await first.evaluate(async () => {
          while (!(await device.status()).waitingFor.some((words) => words.includes("charge"))) await 0;
        });
        await second.evaluate((conditions) => device.run(conditions), conditions);
        const waiting = await second.evaluate(async () => (await device.status()).waitingFor);
        await first.close();
        await second.evaluate(async () => {
          while (!(await device.status()).waitingFor.some((words) => words.includes("charge"))) await 0;
        });
        await second.evaluate(() => device.stop());
        return waiting;
    """
    (waiting,) = page.run(script)
    assert "another tab" in waiting
    page.close()


def test_the_key_cannot_be_read_and_leaving_removes_everything(server, browser, coordinator, rounds):
    page = user(browser, server, "lea", "rounds")
    page.do(OBSERVE, **ROWS)
    script = """
        const opened = (name) => new Promise((resolve, reject) => {
          const request = indexedDB.open(name);
          request.onsuccess = () => resolve(request.result);
          request.onerror = () => reject(request.error);
        });
        const all = (database, store) => new Promise((resolve) => {
          const request = database.transaction(store).objectStore(store).getAll();
          request.onsuccess = () => resolve(request.result);
        });
        const database = await opened("shoal-rounds");
        const identity = (await all(database, "device")).find((value) => value?.key !== undefined);
        const read = await crypto.subtle.exportKey("pkcs8", identity.key.privateKey).catch((error) => error.name);
        await device.leave();
        const left = [];
        for (const store of database.objectStoreNames) left.push(...(await all(database, store)));
        return { read, extractable: identity.key.privateKey.extractable, left };
    """
    assert page.do(script) == {"read": "InvalidAccessError", "extractable": False, "left": []}
    (lea,) = [device for device in coordinator.devices() if device.name == "lea"]
    assert lea.revoked is not None
    page.close()


def test_a_page_of_a_coordinator_may_use_threads_and_lets_nothing_leak(server, browser, rounds):
    page = user(browser, server, "max", "rounds", runtime={"from": "runtime/", "threads": 2, "webgpu": True})
    leak = """
        return new Promise((resolve) => {
          document.addEventListener("securitypolicyviolation", (event) => resolve(event.effectiveDirective));
          fetch(other).then(() => resolve("sent"), () => undefined);
        });
    """
    script = "return { isolated: crossOriginIsolated, runtime: (await device.status()).runtime };"
    # there is no graphics processor here: the next runtime is taken
    assert page.do(script) == {"isolated": True, "runtime": "wasm with 2 threads"}
    assert page.do(leak, other=server.url.replace("127.0.0.1", "app.localhost")) == "connect-src"
    page.close()


def test_addresses_that_are_not_secure_and_other_origins_are_told_apart(server, browser, rounds):
    port = server.url.rpartition(":")[2]
    page = Page(browser, "nora", f"http://{ELSEWHERE}:{port}/page/")
    script = f"""
        const {{ Device }} = await import("/page/device/index.js");
        return Device.join(location.origin, {{ task: "rounds" }}).catch({FAILURE});
    """
    failed = page.do(script)
    assert failed["name"] == "Unsupported"
    assert "secure context" in failed["message"]
    call = """
        const headers = { Authorization: `Bearer ${token}` };
        return fetch(`${url}/v1/tasks`, { headers }).then(
          async (response) => (await response.json()).map((task) => task.name),
          (error) => error.name,
        );
    """
    assert page.do(call, url=server.url, token=server.admin_token) == "TypeError"
    page.close()


@contextmanager
def agent(server: ServerProcess, task: shoal.Task, folder: Path) -> Iterator[None]:
    """Let a Python agent with installed code take part, in a thread."""
    home, stop = AgentHome(folder), Event()
    python = Agent(
        server.url, "python", home, ArrayData({"x": X, "y": Y}), token=server.enrolment_token, code=lambda: task
    )
    with ThreadPoolExecutor(1) as threads:
        running = threads.submit(python.run, stop)
        try:
            yield
        finally:
            stop.set()
            running.result(60)
            home.close()


def combined(spec: TaskSpec, updates: list[Update], start: Tree) -> str:
    """Return the digest of the version that these updates make of `start`."""
    aggregator = registry.aggregator(spec.aggregator)
    total = aggregator.init(spec)
    for update in updates:
        total = aggregator.add(total, update)
    server = registry.server_optimizer(spec.server)
    delta = aggregator.finish(total)["delta"]
    moved, _ = advance(spec.travelling, start, delta, server, server.init(trainable(spec.travelling, start)))
    return digest(moved)


def report(call: dict[str, Any]) -> tuple[ReportHead, bytes]:
    body = base64.b64decode(call["body"])
    length = 4 + head_length(body)
    return read_head(body[4:length]), body[length:]


def test_two_pages_and_a_python_agent_make_the_exact_mean(server, browser, coordinator, tmp_path):
    """The reply to a report is lost and the page opened anew: the same bytes come again, and count once."""
    names = ("olga", "paul")
    task = replace(TASK, name="exact", model=nn.Sequential(nn.Linear(4, 8), nn.ReLU(), nn.Linear(8, 1), nn.Flatten(0)))
    run = coordinator.publish(task, rounds=1, goal=3, seed=SEED, plan=True)
    pages = [user(browser, server, name, "exact", holdout=0) for name in names]
    for page in pages:
        page.do(OBSERVE, **ROWS)
    lose = """
        const { page, context } = kept[name];
        const devtools = await context.newCDPSession(page);
        devtools.on("Fetch.requestPaused", ({ requestId }) =>
          devtools.send("Fetch.failRequest", { requestId, errorReason: "ConnectionReset" }),
        );
        await devtools.send("Fetch.enable", { patterns: [{ urlPattern: "*/report", requestStage: "Response" }] });
    """
    pages[0].run(lose)
    assert pages[0].do(f"return device.sync().catch({FAILURE});")["code"] == "unreachable"
    pages[0].close()
    pages[0].open()
    again(pages[0], "exact", holdout=0)
    with agent(server, task, tmp_path / "python"):
        for page in pages:
            page.do("while (!(await device.releases()).some(({ accepted }) => accepted)) await device.sync();")
        (version,) = run.follow(within=60.0)
    spec, start = run.spec, run.params(0)
    start = {name: start[name] for name in spec.travelling}
    reference = {name: trained(task, spec, start, name) for name in (*names, "python")}
    updates = [reference["python"]]
    for page, name in zip(pages, names, strict=True):
        (call,) = page.calls("/report")
        head, data = report(call)
        delta = split_trees(decode_tree(data))["delta"]
        updates.append(Update(name, delta, head.weight))
        assert head.digest == sha256(data).hexdigest()
        assert head.weight == reference[name].weight
        assert head.metrics["loss"] == pytest.approx(reference[name].metrics["loss"], rel=1e-5)
        for each, change in delta.items():
            wanted = start[each] + reference[name].delta[each]
            assert np.abs(start[each] + change - wanted).max() <= 1e-5 * np.abs(wanted).max()
            assert np.abs(change).max() > 1e-4
    assert version.reports == 3
    assert combined(spec, updates, start) == version.digest
    for page in pages:
        page.close()


def trained(task: shoal.Task, spec: TaskSpec, start: Tree, name: str) -> Update:
    """Train the rows for the first round with the reference trainer."""
    client = ClientData(name, {"x": X, "y": Y}, name, derive(SEED, 1, name))
    (update,) = LoopTrainer(task).train(start, spec.local, [client])
    return update


def held_out(name: str) -> list[int]:
    """Return which of a device's rows are held out: one of each five."""
    seed = derive(0, name, "holdout")
    return [5 * block + derive(seed, block) % 5 for block in range(len(X) // 5)]


def test_metrics_of_a_version_are_the_mean_over_the_held_out_rows_of_two_pages(server, browser, coordinator, rounds):
    names = ("quin", "rosa")
    pages = [user(browser, server, name, "rounds", minimumRows=1) for name in names]
    for page in pages:
        page.do(OBSERVE, **ROWS)
    with ThreadPoolExecutor(1) as threads:
        asked = threads.submit(coordinator.evaluate, f"{rounds.id}@0", goal=2)
        for page in pages:
            page.do(
                "while (!(await device.releases()).some(({ what }) => what.startsWith('metrics'))) await device.sync();"
            )
        found = asked.result(60)
    rows = [row for name in names for row in held_out(name)]
    expected, _ = coordinator.plan(rounds.id).evaluate(rounds.params(0), {"x": X[rows], "y": Y[rows]})
    assert (found.rows, found.owners) == (16, 2)
    assert found.metrics["loss"] == pytest.approx(expected["loss"], rel=1e-5)
    for page in pages:
        page.close()


def test_the_page_of_the_docs_works_as_typed(server, browser, rounds):
    text = re.search(r"```ts\n(.*?)```", (TOP / "docs/web-device.md").read_text(), re.DOTALL)
    assert text is not None
    typed = text[1]
    name = next(name for name in ("sam", "tom", "una", "vic", "wes") if held_out(name)[0] != 0)
    here = {
        'import { Device } from "./device/index.js";': 'const { Device } = await import("/page/device/index.js");',
        "https://shoal.example.org": server.url,
        '"digits"': '"rounds"',
        "token, //": f'token, name: "{name}", //',
    }
    for there, replaced in here.items():
        assert there in typed
        typed = typed.replace(there, replaced)
    page = Page(browser, name, f"{server.url}/page/")
    script = f"""
        const pixels = [1, 2, 3, 4];
        const {{ signal }} = new AbortController();
        {typed}
        await device.stop();
        return {{ status: await device.status(), shape: output.shape }};
    """
    got = page.do(script, token=server.enrolment_token)
    assert (got["status"]["examples"], got["status"]["problem"], got["shape"]) == (1, "", [1])
    page.close()

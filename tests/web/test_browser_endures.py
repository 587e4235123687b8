"""What a device in a browser bears: conditions that end, no Ed25519, a process that dies; and files fetched once."""

import base64
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from tests.web.browser import FILES, Page
from tests.web.joined import OBSERVE, OPEN, ROWS, TASK, again, counted, user

pytestmark = pytest.mark.processes

PHONE = """
    globalThis.phone = { charging: true, level: 0.9, type: "wifi", saveData: false, visibility: "visible" };
    const battery = {
      get charging() { return phone.charging; },
      get level() { return phone.level; },
    };
    navigator.getBattery = async () => battery;
    const connection = {
      get type() { return phone.type; },
      get saveData() { return phone.saveData; },
    };
    Object.defineProperty(navigator, "connection", { get: () => connection });
    Object.defineProperty(document, "visibilityState", { get: () => phone.visibility });
"""
"""A phone's readings, which a test sets."""

ENDED = {
    "not charging": {"charging": False},
    "a charge of 20%, below 30%": {"level": 0.2},
    "not unmetered": {"type": "cellular"},
    "not visible": {"visibility": "hidden"},
}


def test_a_condition_that_ends_in_a_training_gives_the_place_back_and_the_device_goes_on(server, browser, coordinator):
    task = replace(TASK, name="endless", local=replace(TASK.local, epochs=1_000_000))
    coordinator.publish(task, rounds=1, goal=1, plan=True)
    page = user(browser, server, "otto", "endless", before=PHONE)
    script = f"""
        {OBSERVE}
        const heard = (kind, fits) => new Promise((resolve) => {{
          const end = device.on(kind, (event) => fits(event) && (end(), resolve()));
        }});
        const trains = async () => {{
          await heard("state", (what) => what.startsWith("round 1"));
          await heard("progress", ({{ kind }}) => kind === "round");
        }};
        const waits = async () => {{
          for (;;) {{
            const {{ waitingFor }} = await device.status();
            if (waitingFor.length > 0) return waitingFor;
            await new Promise((resolve) => setTimeout(resolve, 20));
          }}
        }};
        const good = {{ ...phone }};
        const told = [];
        device.run({{ charging: true, battery: 0.3, unmetered: true, visible: true }});
        for (const change of changes) {{
          await trains();
          Object.assign(phone, change);
          told.push(await waits());
          Object.assign(phone, good);
        }}
        await trains();
        await device.stop();
        const {{ problem, pending, released }} = await device.status();
        return {{ told, problem, pending, released }};
    """
    got = page.do(script, **ROWS, changes=list(ENDED.values()))
    assert got == {"told": [[words] for words in ENDED], "problem": got["problem"], "pending": 0, "released": 0}
    released = page.calls("/release")
    reasons = [base64.b64decode(call["body"]).decode() for call in released]
    assert [call["status"] for call in released] == [200] * 5
    for words, reason in zip([*ENDED, "the schedule was stopped"], reasons, strict=True):
        assert f"stopped: {words}" in reason
    assert len({call["path"] for call in released}) == 1  # its own place again, each time
    assert page.calls("/report") == []
    page.close()


OLD = """
    for (const name of ["generateKey", "importKey"]) {
      const known = crypto.subtle[name].bind(crypto.subtle);
      crypto.subtle[name] = async (...given) => {
        if (given.includes("Ed25519")) throw new DOMException("Unrecognized name.", "NotSupportedError");
        return known(...given);
      };
    }
"""
"""A browser from before Ed25519."""


def test_a_browser_without_ed25519_signs_with_p256(server, browser, coordinator, rounds):
    before = counted(coordinator, rounds)
    page = user(browser, server, "pia", "rounds", before=OLD)
    page.do(OBSERVE, **ROWS)
    assert page.do("return device.sync();")
    page.reload()
    again(page, "rounds")
    key = """
        const request = indexedDB.open("shoal-rounds");
        const database = await new Promise((resolve) => (request.onsuccess = () => resolve(request.result)));
        const found = database.transaction("device").objectStore("device").get("identity");
        const { key } = await new Promise((resolve) => (found.onsuccess = () => resolve(found.result)));
        return { kind: key.kind, algorithm: key.privateKey.algorithm.namedCurve, kept: key.privateKey.extractable };
    """
    assert page.do(key) == {"kind": "p-256", "algorithm": "P-256", "kept": False}
    assert counted(coordinator, rounds) == before + 1
    assert page.do("return device.sync();")
    assert counted(coordinator, rounds) == before + 2
    page.close()


def test_a_browser_that_is_killed_between_the_disk_and_the_network_sends_the_same_bytes_and_counts_once(
    server, browser, coordinator, rounds, tmp_path: Path
):
    before = counted(coordinator, rounds)
    page = Page(browser, "rex", f"{server.url}/page/", profile=tmp_path)
    page.do(OPEN, settings={"task": "rounds", "token": server.enrolment_token, "name": "rex"})
    page.do(OBSERVE, **ROWS)
    lost = page.run(
        """
        const { page, context } = kept[name];
        const devtools = await context.browser().newBrowserCDPSession();
        const { processInfo } = await devtools.send("SystemInfo.getProcessInfo");
        const { id } = processInfo.find(({ type }) => type === "browser");
        // never sent on
        const reported = new Promise((resolve) =>
          page.route("**/report", (route) => resolve(route.request().postDataBuffer().toString("base64"))),
        );
        await page.evaluate(() => void device.sync());
        const body = await reported;
        const ended = new Promise((resolve) => context.on("close", resolve));
        process.kill(id, "SIGKILL");
        await ended;
        return body;
        """
    )
    assert counted(coordinator, rounds) == before
    page = Page(browser, "rex", f"{server.url}/page/", profile=tmp_path)
    again(page, "rounds")
    assert page.do("const { pending, examples } = await device.status();\nreturn [pending, examples];") == [1, 40]
    assert page.do("return device.sync();")
    sent = [call for call in page.calls("/report") if call["status"] == 200]
    assert sent[0]["body"] == lost
    assert counted(coordinator, rounds) == before + len(sent)
    page.run("await kept[name].context.close();")


@pytest.mark.parametrize("keeper", ["the service worker", "the browser's cache"])
def test_the_runtime_is_fetched_once_and_never_again(server, browser, rounds, keeper):
    """Its address holds its digest: not even a question is asked about it again."""
    served = keeper == "the service worker"
    name = "sue" if served else "tim"
    page = Page(browser, name, f"{server.url}/page/")
    watch = """
        const user = kept[name];
        user.runtime = [];
        user.context.on("requestfinished", async (request) => {
          const file = new URL(request.url()).pathname.match(/^.runtime.[0-9a-f]{64}.(.*)$/)?.[1];
          if (file === undefined || request.serviceWorker() !== null) return;
          const { responseHeadersSize, responseBodySize } = await request.sizes();
          const bytes = responseHeadersSize + responseBodySize; // all that came over the network
          user.runtime.push({ file, bytes, kept: (await request.response()).fromServiceWorker() });
        });
    """
    page.run(watch)
    place = page.do("return (await (await fetch('/runtime/')).json()).from;")
    settings = {"runtime": {"from": f"/runtime/{place}"}, **({"service": "device/service.js"} if served else {})}
    page.do(OPEN, settings={"task": "rounds", "token": server.enrolment_token, "name": name, **settings})
    first = fetched(page)
    assert sum(each["bytes"] for each in first) > 3_000_000
    if served:
        page.do(
            """
            const digests = ({ url }) => url.includes("/runtime/");
            while ((await (await caches.open("shoal-files")).keys()).filter(digests).length < count) await 0;
            """,
            count=len(FILES),
        )
    page.reload()
    again(page, "rounds", **settings)
    assert page.do("return (await device.status()).runtime;") == "wasm"
    second = fetched(page)
    assert [(each["bytes"], each["kept"]) for each in second] == [(0, served)] * len(FILES)
    page.close()


def fetched(page: Page) -> list[dict[str, Any]]:
    """Return what the page loaded of the runtime since the last call, once it is all there."""
    script = """
        const { runtime } = kept[name];
        while (runtime.length < given[0]) await new Promise((resolve) => setTimeout(resolve, 10));
        return runtime.splice(0);
    """
    found: list[dict[str, Any]] = page.run(script, len(FILES))
    assert sorted(each["file"] for each in found) == sorted(FILES)
    return found

"""The device in TypeScript in real Chromium: pages take part in the rounds of a real coordinator."""

from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest

import shoal
from shoal.testing.server_process import ServerProcess
from tests.web.browser import Browser, make_page
from tests.web.test_device_parts import regression

pytestmark = pytest.mark.processes


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ServerProcess]:
    folder = tmp_path_factory.mktemp("browser")
    page = make_page(folder / "page")
    with ServerProcess(folder / "home", folder / "log", "--page", str(page)) as running:
        running.start()
        yield running


OPEN = """
    const { Device } = await import("/page/device/index.js");
    window.device = await Device.join(location.origin, {
      runtime: { from: "runtime/" },
      worker: "device/worker.js",
      service: "device/service.js",
      ...given,
    });
"""


def page(browser: Browser, server: ServerProcess, name: str) -> None:
    """Open a page in a context of its own: another user's browser."""
    script = """
        const [name, url] = given;
        kept[name] = { context: await browser.newContext(), problems: [] };
        kept[name].page = await kept[name].context.newPage();
        kept[name].page.on("pageerror", (error) => kept[name].problems.push(String(error)));
        await kept[name].page.goto(url);
    """
    browser.run(script, name, f"{server.url}/page/")


def evaluate(browser: Browser, name: str, script: str, given: object = None) -> Any:
    """Run the body of an async function of `given` in a page."""
    run = "return kept[given[0]].page.evaluate(`(async (given) => {${given[1]}})(${JSON.stringify(given[2])})`);"
    return browser.run(run, name, script, given)


def test_a_page_joins_observes_predicts_personalises_and_syncs(server, browser):
    task, x, y = regression()
    with shoal.Coordinator.connect(server.url, token=server.admin_token) as coordinator:
        run = coordinator.publish(task, rounds=1, goal=1, plan=True)
        page(browser, server, "ann")
        evaluate(browser, "ann", OPEN, {"task": "line", "token": server.enrolment_token, "name": "ann"})
        script = """
            const accepted = [];
            device.on("accepted", ({ round }) => accepted.push(round));
            for (let row = 0; row < given.x.length; row += 1) await device.observe(given.x[row], given.y[row]);
            const losses = [];
            const better = await device.personalise({ onStep: (step, loss) => losses.push(loss) });
            const synced = await device.sync();
            while ((await device.status()).version === 0) await device.sync(); // made after the receipt
            const output = [...(await device.predict(given.x[0])).values];
            return { accepted, better, synced, losses, output, status: await device.status() };
        """
        got = evaluate(browser, "ann", script, {"x": x.tolist(), "y": y.tolist()})
        (version,) = run.follow(within=60.0)
    assert (got["accepted"], got["synced"], version.reports) == ([1], True, 1)
    assert got["better"]["kept"]
    assert len(got["losses"]) == 2 * 4
    assert np.isfinite(got["output"]).all()
    assert (got["status"]["version"], got["status"]["runtime"]) == (1, "wasm")
    assert browser.run("return kept.ann.problems") == []

"""The digits demo as a person meets it: `shoal demo --digits` as a process, its page in phones that Chromium plays."""

import contextlib
import json
import math
import os
import select
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

import shoal
from shoal.demo.digits.page import BUILT
from shoal.testing.server_process import ServerProcess
from tests.web.browser import DEVICE, RUNTIME, TOP, Browser, missing

pytestmark = [pytest.mark.processes, pytest.mark.slow]

STATIC = TOP / "src/shoal/demo/static/digits"
SECONDS = 120.0

ZERO = [[50 + 24 * math.sin(turn / 3), 50 - 40 * math.cos(turn / 3)] for turn in range(20)]

LINES = {
    "a one as it is written in Germany": (1, [[[12, 80], [58, 8], [58, 92]]]),
    "another": (1, [[[8, 90], [54, 8], [54, 92]]]),
    "a third": (1, [[[10, 60], [60, 10], [60, 92]]]),
    "a zero with a long slash": (0, [ZERO, [[16, 94], [84, 6]]]),
    "a seven with two bars": (7, [[[24, 12], [76, 12], [48, 90]], [[28, 40], [74, 40]], [[28, 62], [74, 62]]]),
}
"""Digits in hundredths of the square, as people may write them who did not fill in forms in the United States."""

OPEN = """
    const [name, url, scheme] = given;
    const phone = { viewport: { width: 390, height: 844 }, deviceScaleFactor: 2, isMobile: true, hasTouch: true };
    const context = await browser.newContext({ ...phone, colorScheme: scheme });
    const page = await context.newPage();
    kept[name] = { context, page, problems: [], sent: [] };
    page.on("pageerror", (error) => kept[name].problems.push(String(error)));
    page.on("console", (message) => message.type() === "error" && kept[name].problems.push(message.text()));
    page.on("request", (request) => {
      const body = request.postDataBuffer();
      if (body !== null) kept[name].sent.push({ url: request.url(), size: body.length, text: body.toString("latin1") });
    });
    page.setDefaultTimeout(100_000);
    await page.goto(url);
    await page.waitForFunction(() => document.querySelector("#sharing").disabled === false);
    return page.url();
"""

DRAW = """
    const [name, strokes] = given;
    const { page } = kept[name];
    await page.evaluate(() => scrollTo(0, 0));
    const clear = page.locator("#clear");
    if (await clear.isEnabled()) await clear.click();
    const { x, y, width, height } = await page.locator("#pad").boundingBox();
    const at = ([across, down]) => [x + (across / 100) * width, y + (down / 100) * height];
    for (const [first, ...others] of strokes) {
      await page.mouse.move(...at(first));
      await page.mouse.down();
      for (const point of others) await page.mouse.move(...at(point), { steps: 8 });
      await page.mouse.up();
    }
    await page.waitForFunction(() => document.querySelector("#said").textContent.startsWith("This device says"));
    return { mine: await page.textContent("#mine"), everyone: await page.textContent("#everyone") };
"""

TEACH = """
    const [name, digit] = given;
    const { page } = kept[name];
    await page.getByRole("group", { name: "Which digit is it?" }).getByRole("button", { name: String(digit) }).click();
    await page.waitForFunction(() => /^(Right|Learnt|It tried)/.test(document.querySelector("#said").textContent));
    const text = (id) => page.textContent(id);
    return { said: await text("#said"), mine: await text("#mine"), everyone: await text("#everyone") };
"""

RELEASED = """
    const { page } = kept[given[0]];
    return page.$$eval("#releases tr", (rows) => rows.map((row) => [...row.cells].map((cell) => cell.textContent)));
"""

AXE = """
    const [name, source] = given;
    const { page } = kept[name];
    await page.evaluate(source);
    const { violations, passes } = await page.evaluate(() => axe.run());
    const found = violations.map(({ id, nodes }) => `${id}: ${nodes.map(({ html }) => html.slice(0, 120)).join(", ")}`);
    return { found, passes: passes.length };
"""


class Demo:
    """The demo's process: what it printed, one object a line."""

    def __init__(self, home: Path) -> None:
        self.home = home
        command = [sys.executable, "-m", "shoal", "demo", "--digits", "--json", "--port", "0", "--every", "4"]
        self.process = subprocess.Popen(
            [*command, "--web-runtime", str(RUNTIME), "--home", str(home)], stdout=subprocess.PIPE, text=False
        )
        self._said = b""

    def line(self) -> dict[str, Any]:
        """Return the next object that it prints."""
        assert self.process.stdout is not None
        until = time.monotonic() + SECONDS
        while b"\n" not in self._said:
            ready, _, _ = select.select([self.process.stdout], [], [], max(0.0, until - time.monotonic()))
            piece = os.read(self.process.stdout.fileno(), 1 << 16) if ready else b""
            assert piece, f"nothing came in {SECONDS:g} s"
            self._said += piece
        line, _, self._said = self._said.partition(b"\n")
        found: dict[str, Any] = json.loads(line)
        return found

    def events(self, event: str) -> list[dict[str, Any]]:
        """Return what the coordinator logged of one kind."""
        lines = (self.home / "server.log").read_text().splitlines()
        return [found for line in lines if (found := json.loads(line)).get("event") == event]

    def end(self) -> int:
        """Interrupt it as a person would, and return its exit code."""
        self.process.send_signal(signal.SIGINT)
        with self.process:
            return self.process.wait(30)


@pytest.fixture(scope="module")
def demo(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Demo]:
    if any(not (STATIC / name).exists() for name in BUILT):
        missing("the page of the digits demo is not built: `make browser` builds it")
    running = Demo(tmp_path_factory.mktemp("digits") / "home")
    try:
        yield running
    finally:
        with contextlib.suppress(ProcessLookupError):
            running.end()


@pytest.fixture(scope="module")
def page(demo: Demo) -> str:
    assert demo.line()["accuracy"] > 0.94  # version 0
    found: str = demo.line()["page"]
    return found


@pytest.fixture(scope="module")
def phones(demo: Demo, page: str, browser: Browser) -> Browser:
    """Two phones with the page open: "ann" in light, "ben" in dark."""
    for name, scheme in (("ann", "light"), ("ben", "dark")):
        address = browser.run(OPEN, name, page, scheme)
        assert "token" not in address  # neither in the history nor on a screenshot
    return browser


def axe_source() -> str:
    return (DEVICE / "node_modules/axe-core/axe.min.js").read_text()


@pytest.fixture(scope="module")
def odd(phones: Browser) -> str:
    """A drawing that version 0 takes for another digit."""
    for name, (digit, strokes) in LINES.items():
        if phones.run(DRAW, "ann", strokes) != {"mine": str(digit), "everyone": str(digit)}:
            return name
    pytest.fail("version 0 knows all of them: add a drawing that it does not know")


def test_a_correction_is_learnt_on_this_device_at_once(phones, odd):
    digit, strokes = LINES[odd]
    before = phones.run(DRAW, "ann", strokes)
    assert before["mine"] == before["everyone"] != str(digit)
    assert phones.run(RELEASED, "ann") == []
    after = phones.run(TEACH, "ann", digit)
    drawings = 1
    while after["said"].startswith("It tried") and drawings < 4:  # as the page asks for then
        phones.run(DRAW, "ann", strokes)
        after, drawings = phones.run(TEACH, "ann", digit), drawings + 1
    assert after["said"].startswith(("Learnt in", "Right"))
    assert after["mine"] == str(digit)
    assert phones.run("return kept.ann.page.textContent('#drawings')") == f"{drawings} drawing{'s' * (drawings > 1)}"


def test_a_second_browser_gets_it_without_having_seen_the_drawing(phones, odd, demo):
    digit, strokes = LINES[odd]
    heard = """
        const [number] = given;
        const { page } = kept.ben;
        const seen = (least) => Number(/\\d+/.exec(document.querySelector("#version").textContent)[0]) >= least;
        await page.waitForFunction(seen, number);
    """
    for number in range(1, 7):
        made = demo.line()
        assert (made["version"], made["devices"]) == (number, 3)
        assert made["accuracy"] > 0.9
        phones.run(heard, number)
        guess = phones.run(DRAW, "ben", strokes)
        if guess["everyone"] == str(digit):
            break
    assert guess["everyone"] == guess["mine"] == str(digit)
    assert phones.run(RELEASED, "ben") == []
    assert phones.run("return kept.ben.page.textContent('#drawings')") == "0 drawings"


def test_the_page_shows_what_left_and_nothing_else_leaves(phones, demo):
    """Every body that the page sent is a call of the protocol; the only large ones are the changes that it shows."""
    released = phones.run(RELEASED, "ann")
    used = [row for row in released if row[4] != "not used"]  # a round may end a moment before its change arrives
    (_, times, sizes, norms, _) = zip(*released, strict=True)
    ours = [event for event in demo.events("report accepted") if event["device"] not in ("bob", "alice")]
    assert [(int(row[0]), int(row[2].replace(",", ""))) for row in reversed(used)] == [
        (event["round"], event["bytes"]) for event in ours
    ][: len(used)]
    assert used
    assert {int(size.replace(",", "")) for size in sizes} == {24840}
    assert all(len(each) == 8 for each in times)
    assert all(0.01 < float(norm) < 10 for norm in norms)
    bodies = phones.run("return kept.ann.sent.map(({ url, size }) => [new URL(url).pathname, size])")
    assert all(path.startswith("/v1/") for path, _ in bodies)
    large = [path for path, size in bodies if size > 2000]
    assert large
    assert all(path.endswith(("/report", "/upload")) for path in large)


@pytest.mark.parametrize("name", ["ann", "ben"])
def test_the_page_is_accessible_in_light_and_dark(phones, name):
    found = phones.run(AXE, name, axe_source())
    assert found["found"] == []
    assert found["passes"] > 20


def test_the_switch_stops_what_leaves(phones, demo):
    switch = """
        const { page } = kept.ann;
        await page.getByRole("switch", { name: "Take part" }).click();
        return page.getAttribute("#sharing", "aria-checked");
    """
    assert phones.run(switch) == "false"
    phones.run("await kept.ann.page.waitForFunction(() => /paused/.test(document.querySelector('#state').textContent))")
    before = phones.run(RELEASED, "ann")
    abandoned = len(demo.events("round abandoned"))
    until = time.monotonic() + SECONDS
    while len(found := demo.events("round abandoned")) < abandoned + 2:
        assert time.monotonic() < until
        phones.run("await kept.ann.page.waitForTimeout(500)")
    assert "got 2 of at least 3" in found[-1]["reason"]  # the two owners, and nobody else
    reload = """
        const { page } = kept.ann;
        await page.reload();
        await page.waitForFunction(() => document.querySelector("#sharing").disabled === false);
        return [await page.getAttribute("#sharing", "aria-checked"), await page.textContent("#drawings")];
    """
    assert phones.run(reload) == ["false", "1 drawing"]
    assert [row[:4] for row in phones.run(RELEASED, "ann")] == [row[:4] for row in before]
    assert phones.run(switch) == "true"
    more = """
        const more = (rows) => document.querySelectorAll("#releases tr").length > rows;
        await kept.ann.page.waitForFunction(more, given[0]);
    """
    phones.run(more, len(before))


def test_the_keyboard_is_enough(phones):
    script = """
        const { page } = kept.ben;
        await page.locator("#clear").click();
        await page.locator("h1").click();
        await page.keyboard.press("Tab");
        const focused = await page.evaluate(() => document.activeElement.id);
        await page.keyboard.press("Space");
        for (let step = 0; step < 11; step += 1) await page.keyboard.press("ArrowDown");
        await page.keyboard.press("Space");
        await page.waitForFunction(() => document.querySelector("#said").textContent.startsWith("This device says"));
        const guess = await page.textContent("#mine");
        await page.keyboard.press("1");
        await page.waitForFunction(() => /^(Right|Learnt)/.test(document.querySelector("#said").textContent));
        const [after, drawings] = [await page.textContent("#mine"), await page.textContent("#drawings")];
        return { focused, guess, after, drawings };
    """
    got = phones.run(script)
    assert (got["focused"], got["after"], got["drawings"]) == ("pad", "1", "1 drawing")


def test_leaving_deletes_everything_here(phones):
    script = """
        const { page } = kept.ben;
        const leave = page.locator("#leave");
        await leave.click();
        await leave.click();
        await page.waitForFunction(() => document.querySelector("#said").textContent.startsWith("You left."));
        await page.reload();
        await page.waitForFunction(() => !document.querySelector("#notice").hidden);
        return [await page.textContent("#notice"), await page.textContent("#drawings")];
    """
    notice, drawings = phones.run(script)
    assert "token" in notice
    assert drawings == "0 drawings"


def test_nothing_went_wrong_in_the_pages_and_the_demo_ends_at_ctrl_c(phones, demo):
    late = "status of 410"  # a round that ended a moment before: its change is not used
    assert [problem for problem in phones.run("return kept.ann.problems") if late not in problem] == []
    assert demo.end() == 130


def test_another_demo_at_the_same_address_takes_the_browser_in_anew(phones, page, tmp_path, demo):
    """A browser still has the key, the drawings and the model of a coordinator that is gone."""
    port = int(page.partition("/page/")[0].rpartition(":")[2])
    options = ["--page", str(demo.home / "page"), "--web-runtime", str(RUNTIME)]
    with ServerProcess(tmp_path / "home", tmp_path / "log", *options, port=port) as server:
        server.start()
        script = """
            const { page } = kept.ann;
            await page.goto("about:blank");
            await page.goto(given[0]);
            await page.waitForFunction(() => !document.querySelector("#notice").hidden);
            return [await page.textContent("#notice"), await page.textContent("#drawings"), page.url()];
        """
        notice, drawings, address = phones.run(script, f"{server.url}/page/#token={server.enrolment_token}")
        with shoal.Coordinator.connect(server.url, token=server.admin_token) as coordinator:
            (device,) = coordinator.devices()
    assert "no version of task digits" in notice  # it joined; there is no task here
    assert (drawings, address) == ("0 drawings", f"{server.url}/page/")
    assert device.name.startswith("device-")

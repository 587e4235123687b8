// A person at the dashboard, in headless Chromium. Reads what is there as one line of JSON; whenever something has to
// happen at the coordinator it prints {"want": ...} and waits for a line. Prints what was seen at the end.

import { createRequire } from "node:module";
import { createInterface } from "node:readline";

const require = createRequire(new URL("../../web/device/package.json", import.meta.url));
const { chromium } = require("playwright-core");
const AXE = require.resolve("axe-core/axe.min.js");

const lines = createInterface({ input: process.stdin })[Symbol.asyncIterator]();
const next = async () => JSON.parse((await lines.next()).value);
const want = async (what) => {
  process.stdout.write(`${JSON.stringify({ want: what })}\n`);
  return next();
};

const given = await next();
const seen = { problems: [], axe: {}, overflow: [] };
const browser = await chromium.launch({ executablePath: given.program, args: ["--no-sandbox", "--disable-gpu", "--no-first-run", "--disable-background-networking", "--disable-sync", "--disable-component-update"] });

async function person(options = {}) {
  const context = await browser.newContext({ viewport: { width: 1280, height: 900 }, ...options });
  context.setDefaultTimeout(20_000);
  const page = await context.newPage();
  page.on("pageerror", (error) => seen.problems.push(String(error)));
  page.on("console", (message) => {
    const text = message.text();
    // a refused sign-in and a stream cut by its end are answers, and markup is refused on purpose
    if (message.type() === "error" && !/status of (401|403)|ERR_INCOMPLETE|TrustedHTML/.test(text)) seen.problems.push(text);
  });
  return page;
}

async function signIn(page, token) {
  await page.goto(given.url);
  await page.fill("#token", token);
  await page.keyboard.press("Enter");
}

async function check(page, name) {
  await page.addScriptTag({ path: AXE }).catch(() => {});
  const found = await page.evaluate(async () => (window.axe ? (await window.axe.run()).violations.map((v) => `${v.id}: ${v.nodes[0].html.slice(0, 200)}`) : ["axe was not loaded"]));
  seen.axe[name] = found;
  if (await page.evaluate(() => document.scrollingElement.scrollWidth > innerWidth)) seen.overflow.push(name);
}

const picture = (page, name) => (given.pictures ? page.screenshot({ path: `${given.pictures}/${name}.png` }) : null);
const text = (page, selector = "main") => page.textContent(selector);

try {
  const page = await person({ bypassCSP: true }); // for the accessibility check, which adds a script
  const devtools = await page.context().newCDPSession(page);
  let transferred = 0;
  devtools.on("Network.loadingFinished", ({ encodedDataLength }) => (transferred += encodedDataLength));
  await devtools.send("Network.enable");
  await page.goto(given.url);
  await page.waitForSelector("#token");
  seen.transferred = transferred;
  seen.paint = await page.evaluate(() => performance.getEntriesByName("first-contentful-paint")[0]?.startTime ?? null);
  seen.focused = await page.evaluate(() => document.activeElement.id);
  await check(page, "sign in");
  await page.fill("#token", "shoal_admin_wrong");
  await page.keyboard.press("Enter");
  await page.waitForFunction(() => document.querySelector("#wrong").textContent !== "");
  seen.wrong = await text(page, "#wrong");
  await page.fill("#token", given.admin);
  await page.keyboard.press("Enter");
  await page.waitForSelector(".empty");
  seen.empty = await text(page);
  seen.script = await page.evaluate(() => document.cookie);
  await check(page, "no tasks");

  await want("publish");
  await page.waitForSelector(".card a");
  await page.click(".card a");
  await page.waitForSelector("text=No device has come yet");
  await want("select");
  await page.waitForFunction(() => document.querySelectorAll("td .badge.offered").length === 2);
  seen.parts = await page.$$eval("section td:first-child", (cells) => cells.map((cell) => cell.textContent));
  await want("hostile");
  await page.waitForSelector("td .badge.released");
  seen.hostile = { shown: await text(page), images: await page.$$eval("main img", (found) => found.length), ran: await page.evaluate(() => window.hacked ?? null) };
  await want("commit");
  await page.waitForSelector("text=/Version 1: /");
  await page.waitForSelector("#metrics canvas");
  for (let version = 2; version <= 6; version += 1) await want("commit");
  await page.waitForSelector("text=/Version 6: /");
  await want("select");
  await page.waitForSelector("td .badge.offered");
  await check(page, "round");
  await picture(page, "dashboard-round");

  await page.click("text=Pause");
  await page.waitForSelector("h1 .badge.paused");
  seen.paused = await want("phase");
  await page.click("text=Resume");
  await page.waitForSelector("h1 .badge.collecting");
  await page.fill("input[type=number]", "40");
  await page.click("text=Extend");
  await page.waitForSelector("text=Round 7 of 40");
  seen.extended = await want("phase");

  await page.click(".tabs >> text=Versions");
  await page.waitForSelector("tbody tr");
  await page.check("[aria-label='Compare version 1']");
  await page.check("[aria-label='Compare version 6']");
  await page.click("text=Compare their arrays");
  await page.waitForSelector("text=Norm of the change");
  seen.compared = await page.$$eval("section.card .scroll:last-of-type tbody tr", (rows) => rows.map((row) => [...row.cells].map((cell) => cell.textContent)));
  await check(page, "versions");
  await picture(page, "dashboard-versions");
  await page.click("tr:has([aria-label='Compare version 1']) >> text=Promote…");
  await page.click("dialog button.danger");
  await page.waitForSelector("tr:has([aria-label='Compare version 1']) .badge.served");
  seen.promoted = await want("serving");
  await page.click("text=Roll back…");
  await page.click("dialog button.danger");
  await page.waitForSelector("tr:has([aria-label='Compare version 1']) .badge.rolled-back");

  for (const tab of ["Rounds", "What leaves a device", "Log"]) {
    await page.click(`.tabs >> text=${tab}`);
    await page.waitForSelector("tbody tr");
    seen[tab] = await text(page);
    await check(page, tab);
  }
  await page.click("header >> text=Audit");
  await page.waitForSelector("text=rolled back");
  seen.audit = await text(page);
  await check(page, "audit");
  await page.click("header >> text=Tasks");
  await page.click(".card a");
  await page.click("text=Cancel…");
  await page.keyboard.press("Escape");
  seen.kept = await want("phase");
  await page.click("text=Cancel…");
  await page.click("dialog button.danger");
  await page.waitForSelector("h1 .badge.cancelled");
  await page.click("text=Start again");
  await page.waitForSelector("h1:has-text('-2')");
  seen.again = await text(page, "h1");

  await want("crowd");
  await page.click("header >> text=Devices");
  await page.waitForFunction(() => document.querySelectorAll("#devices .all .line").length > 5);
  seen.rows = await page.$$eval("#devices .line", (lines) => lines.length);
  seen.nodes = await page.evaluate(() => document.querySelectorAll("*").length);
  seen.crowd = await text(page);
  seen.longest = await page.evaluate(async () => {
    const element = document.querySelector("#devices");
    let [longest, last] = [0, performance.now()];
    for (let step = 0; step < 60; step += 1) {
      element.scrollTop += 4000;
      await new Promise(requestAnimationFrame);
      const now = performance.now();
      [longest, last] = [Math.max(longest, now - last), now];
    }
    return longest;
  });
  seen.scrolled = await page.$$eval("#devices .line", (lines) => lines.length);
  await page.$eval("#devices", (element) => (element.scrollTop = 0));
  await picture(page, "dashboard-devices");
  await page.fill("input[type=search]", "device-09999");
  await page.waitForFunction(() => document.querySelectorAll("#devices .all .line").length === 1);
  await check(page, "devices");
  await page.click("text=Revoke…");
  await page.click("dialog button.danger");
  await page.waitForSelector("#devices .badge.revoked");
  seen.revoked = await want("revoked");

  const phone = await person({ viewport: { width: 375, height: 740 }, deviceScaleFactor: 2, isMobile: true, hasTouch: true, colorScheme: "dark", bypassCSP: true });
  await signIn(phone, given.admin);
  await phone.click(".card a");
  await want("select");
  await phone.waitForSelector(".badge.offered");
  await check(phone, "phone, dark");
  await picture(phone, "dashboard-phone");

  const strict = await person();
  const violations = [];
  await strict.exposeFunction("violated", (what) => violations.push(what));
  await strict.addInitScript(() => addEventListener("securitypolicyviolation", (event) => window.violated(`${event.effectiveDirective} ${event.blockedURI}`)));
  await signIn(strict, given.viewer);
  await strict.waitForSelector(".card a");
  await strict.click(".card a");
  await strict.waitForSelector("h1");
  await strict.waitForSelector("#metrics", { state: "attached" });
  seen.viewer = await strict.$$eval("main button", (buttons) => buttons.map((button) => button.textContent));
  seen.forbidden = await strict.evaluate(() => fetch("/v1/tasks/plain-2/cancel", { method: "POST", body: "{}" }).then((answer) => answer.status));
  seen.markup = await strict.evaluate(() => {
    try {
      document.body.innerHTML = "<p>from a string</p>";
      return "done";
    } catch (error) {
      return error.name;
    }
  });
  seen.keyboard = await (async () => {
    await strict.evaluate(() => (location.hash = "#/"));
    await strict.reload();
    await strict.waitForSelector(".card a");
    await strict.keyboard.press("Tab");
    const first = await strict.evaluate(() => document.activeElement.textContent);
    for (let step = 0; step < 10; step += 1) {
      await strict.keyboard.press("Tab");
      if (await strict.evaluate(() => document.activeElement.matches(".card a"))) break;
    }
    await strict.keyboard.press("Enter");
    await strict.waitForSelector(".tabs");
    return first;
  })();
  seen.violations = violations.filter((what) => !what.startsWith("require-trusted-types-for"));
  await want("revoke viewer");
  await strict.waitForSelector("#token");
  seen.out = await text(strict, "#wrong");
} catch (error) {
  process.stderr.write(`problems: ${JSON.stringify(seen.problems)}\n`);
  throw error;
} finally {
  await browser.close();
}
process.stdout.write(`${JSON.stringify({ seen })}\n`);
process.exit(0);

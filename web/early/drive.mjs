// A user at a headless Chromium: `node drive.mjs` reads what to do as JSON from standard input and prints what it saw.
//
// The reply to the first report is lost on purpose and the tab reloaded, so that what the page kept has to bring it on.

import { text } from "node:stream/consumers";
import { chromium } from "playwright-core";

const MILLISECONDS = 120_000;
const ELSEWHERE = "elsewhere.test";
const ARGUMENTS = [
  "--disable-gpu",
  "--disable-quic",
  "--no-first-run",
  "--disable-background-networking",
  "--disable-component-update",
  "--disable-sync",
  `--host-resolver-rules=MAP ${ELSEWHERE} 127.0.0.1`,
];

const { url, token, rows, rounds, program, profile, friend, person } = JSON.parse(await text(process.stdin));
const seen = { reports: [], problems: [], table: [], lost: "", state: "" };

async function fill(page, enrolment) {
  await page.fill("[name=name]", "carol");
  await page.fill("[name=token]", enrolment);
  await page.setInputFiles("[name=rows]", rows);
  await page.click("button");
}

/** Take part until the page says what it does about the reply that was lost. */
async function losingTheFirstReply(page) {
  const devtools = await page.context().newCDPSession(page);
  devtools.on("Fetch.requestPaused", ({ requestId }) =>
    devtools.send("Fetch.failRequest", { requestId, errorReason: "ConnectionReset" }),
  );
  await devtools.send("Fetch.enable", { patterns: [{ urlPattern: "*/report", requestStage: "Response" }] });
  await fill(page, token);
  await page.waitForFunction(() => /next try|Stopped/.test(document.querySelector("#state").textContent));
  seen.lost = await page.textContent("#state");
  await devtools.detach();
}

async function note(response) {
  if (!response.url().endsWith("/report")) return;
  const body = response.request().postDataBuffer();
  seen.reports.push({ status: response.status(), body: body.toString("base64"), receipt: await response.json() });
}

/** Train to the end: every round's receipt stands in the table. */
async function takePart(page) {
  page.on("pageerror", (error) => seen.problems.push(String(error)));
  page.on("console", (message) => {
    if (message.type() === "error") seen.problems.push(`${message.text()} ${message.location().url}`);
  });
  await page.goto(`${url}/page/`);
  await losingTheFirstReply(page);
  const noted = [];
  page.on("response", (response) => noted.push(note(response)));
  await page.reload();
  await fill(page, "");
  await page.waitForFunction(
    (count) => {
      const received = [...document.querySelectorAll("#releases td:last-child")].map((cell) => cell.textContent);
      const over = document.querySelector("#state").textContent.startsWith("Stopped");
      return over || (received.length >= count && !received.includes("not yet"));
    },
    rounds,
    { polling: 100 },
  );
  await Promise.all(noted);
  seen.state = await page.textContent("#state");
  seen.table = await page.$$eval("#releases tr", (rows) => rows.map((row) => [...row.cells].map((cell) => cell.textContent)));
}

/** Let a script of the page call another address: the directive that stops it, or "sent". */
function leak(page, address) {
  return page.evaluate(
    (target) =>
      new Promise((resolve) => {
        document.addEventListener("securitypolicyviolation", (event) => resolve(event.effectiveDirective));
        fetch(target).then(() => resolve("sent"), () => undefined);
      }),
    address,
  );
}

async function stateAt(page, address) {
  await page.goto(address);
  return page.textContent("#state");
}

/** Call the coordinator from a page of another origin: the tasks it may see, or the error. */
async function callFrom(page, origin) {
  await page.goto(`${origin}/healthz`);
  return page.evaluate(
    ([address, bearer]) =>
      fetch(`${address}/v1/tasks`, { headers: { Authorization: `Bearer ${bearer}` } }).then(
        async (response) => (await response.json()).map((task) => task.name),
        (error) => error.name,
      ),
    [url, person],
  );
}

const context = await chromium.launchPersistentContext(profile, { executablePath: program, args: ARGUMENTS });
context.setDefaultTimeout(MILLISECONDS);
try {
  const elsewhere = `http://${ELSEWHERE}:${new URL(url).port}`;
  const own = await context.newPage();
  await takePart(own);
  own.removeAllListeners("console");
  seen.leak = await leak(own, `${friend}/healthz`);
  const other = await context.newPage();
  seen.insecure = await stateAt(other, `${elsewhere}/page/`);
  seen.friend = await callFrom(other, friend);
  seen.stranger = await callFrom(other, elsewhere);
} finally {
  await context.close();
}
process.stdout.write(JSON.stringify(seen));

// A user at headless Chromium, for tests: reads scripts from standard input, one a line as JSON, runs each and answers in a line.
//
// A script is the body of an async function of `browser`, `kept` (what scripts leave for those after them), `given` and
// `launch`, which starts another Chromium on a folder that holds its user's profile.

import { createInterface } from "node:readline";

import { chromium } from "playwright-core";

const ARGUMENTS = [
  "--disable-quic",
  "--no-first-run",
  "--disable-background-networking",
  "--disable-component-update",
  "--disable-sync",
];
const DEADLINE_MS = 120_000;
const AsyncFunction = (async () => {}).constructor;

const { program, more = [] } = JSON.parse(process.argv[2]);
const settings = { executablePath: program, args: [...ARGUMENTS, ...more], chromiumSandbox: false };
const browser = await chromium.launch(settings);
const launch = (folder) => chromium.launchPersistentContext(folder, settings);
const kept = {};

function overdue() {
  const error = new Error(`a script did not end in ${DEADLINE_MS / 1000} seconds`);
  return new Promise((_, reject) => setTimeout(reject, DEADLINE_MS, error).unref());
}

for await (const line of createInterface({ input: process.stdin })) {
  const { script, given } = JSON.parse(line);
  const answer = {};
  try {
    const done = new AsyncFunction("browser", "kept", "given", "launch", script)(browser, kept, given, launch);
    answer.result = await Promise.race([done, overdue()]);
  } catch (error) {
    answer.failed = error.stack ?? String(error);
  }
  process.stdout.write(`${JSON.stringify(answer)}\n`);
}
await browser.close();

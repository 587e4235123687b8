// The page: a form to take part with, what the device does now, and the list of what it released.

import { Device } from "./device.js";
import { open } from "./kept.js";
import { readRows } from "./rows.js";
import { Step } from "./train.js";

const TARGET = "MEDV";
const MINIMUM_ROWS = 10;
const COLUMNS = ["task", "round", "what", "bytes", "digest", "received"];

const form = document.querySelector("#join");
const state = document.querySelector("#state");

function say(line) {
  state.textContent = line;
}

async function show(kept) {
  const releases = (await kept.all("releases")).sort((a, b) => a.time - b.time);
  const rows = releases.map((release) => {
    const row = document.createElement("tr");
    for (const column of COLUMNS) row.insertCell().textContent = told(release[column]);
    return row;
  });
  document.querySelector("#releases").replaceChildren(...rows);
}

function told(value) {
  if (value === undefined) return "not yet";
  return Number.isInteger(value) || typeof value === "string" ? value : new Date(value * 1000).toLocaleString();
}

async function takePart(fields) {
  const rows = readRows(await fields.get("rows").text(), TARGET);
  if (rows.count < MINIMUM_ROWS) throw new Error(`nothing is released about fewer than ${MINIMUM_ROWS} rows`);
  const kept = await open();
  await show(kept);
  const step = await Step.load("step.onnx");
  const device = new Device(location.origin, kept, step, rows, (line) => {
    say(line);
    return show(kept);
  });
  await device.join(fields.get("name"), fields.get("token"));
  await device.run();
}

form.addEventListener("submit", async (event) => {
  event.preventDefault();
  form.querySelector("button").disabled = true;
  try {
    // one device is one tab: a second one waits for the first to end
    await navigator.locks.request("shoal", () => takePart(new FormData(form)));
  } catch (error) {
    say(`Stopped: ${error.message}`);
    form.querySelector("button").disabled = false;
  }
});

if (!isSecureContext) {
  form.hidden = true;
  say("This address is not secure, so the browser lends no keys and digests. Use https, or http on this machine itself.");
}

// From opening a page to its first training step in headless Chromium, cold and warm, in milliseconds of wall time.
//
// Reads { device, folder, name, program } as JSON from standard input. Files are served as a coordinator serves them:
// the runtime and the device to be kept for ever, the page to be asked for every time. Cold is an empty profile, warm the
// same one again.

import { readFileSync } from "node:fs";
import { createServer } from "node:http";
import { createRequire } from "node:module";
import { extname, join, normalize } from "node:path";
import { text } from "node:stream/consumers";

const { device, folder, name, program } = JSON.parse(await text(process.stdin));
const { chromium } = createRequire(join(device, "package.json"))("playwright-core");

const TYPES = { ".js": "text/javascript", ".mjs": "text/javascript", ".wasm": "application/wasm" };
const FOLDERS = { dist: join(device, "dist"), ort: join(device, "node_modules/onnxruntime-web/dist"), zoo: folder };
const PAGE = `<!doctype html><title>first step</title><script type="module">
  import * as parts from "/dist/parts.js";
  const read = async (file) => new Uint8Array(await (await fetch("/zoo/" + file)).arrayBuffer());
  const [plan, whole] = await Promise.all([read("${name}.plan"), read("${name}.case")]);
  const opened = await parts.proved(parts.readPlan(plan), await parts.runtimes({ from: location.origin + "/ort/" }));
  const known = parts.decode(whole);
  const training = new parts.Training(opened, parts.section(known, "params/"), 1);
  await training.step(parts.section(known, "batch/0/"));
  globalThis.first = performance.now();
</script>`;

const server = createServer((request, response) => {
  const [, mount, ...rest] = new URL(request.url, "http://localhost").pathname.split("/");
  if (mount === "") {
    response.setHeader("Content-Type", "text/html");
    response.end(PAGE);
    return;
  }
  try {
    const file = join(FOLDERS[mount], normalize(rest.join("/")));
    const body = readFileSync(file);
    response.setHeader("Content-Type", TYPES[extname(file)] ?? "application/octet-stream");
    response.setHeader("Cache-Control", "public, max-age=31536000, immutable");
    response.end(body);
  } catch {
    response.statusCode = 404;
    response.end();
  }
});
await new Promise((done) => server.listen(0, "127.0.0.1", done));
const browser = await chromium.launch({ executablePath: program, args: ["--no-sandbox", "--disable-gpu"] });
try {
  const context = await browser.newContext();
  const found = {};
  for (const kind of ["cold", "warm"]) {
    const page = await context.newPage();
    await page.goto(`http://127.0.0.1:${server.address().port}/`);
    const handle = await page.waitForFunction(() => globalThis.first, undefined, { timeout: 120_000 });
    found[kind] = Math.round(await handle.jsonValue());
    await page.close();
  }
  console.log(JSON.stringify(found));
} finally {
  await browser.close();
  server.close();
}

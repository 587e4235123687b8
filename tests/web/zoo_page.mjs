// The zoo in headless Chromium: `node zoo_page.mjs` reads what to do as JSON from standard input and prints the result.

import { readFileSync } from "node:fs";
import { createServer } from "node:http";
import { createRequire } from "node:module";
import { extname, join, normalize } from "node:path";
import { text } from "node:stream/consumers";

const { device, here, folder, names, program } = JSON.parse(await text(process.stdin));
const { chromium } = createRequire(join(device, "package.json"))("playwright-core");

const TYPES = { ".js": "text/javascript", ".mjs": "text/javascript", ".wasm": "application/wasm", ".html": "text/html" };
const FOLDERS = { "/dist/": join(device, "dist"), "/ort/": join(device, "node_modules/onnxruntime-web/dist"), "/zoo/": folder, "/here/": here };

const server = createServer((request, response) => {
  const path = new URL(request.url, "http://localhost").pathname;
  const mount = Object.keys(FOLDERS).find((prefix) => path.startsWith(prefix));
  if (path === "/") {
    response.setHeader("Content-Type", "text/html");
    response.end("<!doctype html><title>zoo</title>");
    return;
  }
  try {
    const file = join(FOLDERS[mount], normalize(path.slice(mount.length)));
    const body = readFileSync(file);
    response.setHeader("Content-Type", TYPES[extname(file)] ?? "application/octet-stream");
    response.end(body);
  } catch {
    response.statusCode = 404;
    response.end();
  }
});
await new Promise((done) => server.listen(0, "127.0.0.1", done));
const browser = await chromium.launch({ executablePath: program, args: ["--no-sandbox", "--disable-gpu"] });
try {
  const page = await browser.newPage();
  page.setDefaultTimeout(240_000);
  await page.goto(`http://127.0.0.1:${server.address().port}/`);
  const found = await page.evaluate(async (names) => {
    const [parts, { compare }] = await Promise.all([import("/dist/parts.js"), import("/here/zoo.mjs")]);
    const read = async (name) => new Uint8Array(await (await fetch(`/zoo/${name}`)).arrayBuffer());
    return compare(parts, `${location.origin}/ort/`, read, names);
  }, names);
  console.log(JSON.stringify(found));
} finally {
  await browser.close();
  server.close();
}

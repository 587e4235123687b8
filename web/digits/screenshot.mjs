// Take the picture for the docs: `shoal demo --digits --json` prints "page"; node web/digits/screenshot.mjs PAGE FILE.png
//
// Two phones: one is corrected, the other gets the version that came of it.


import { createRequire } from "node:module";

const { chromium } = createRequire(new URL("../device/package.json", import.meta.url))("playwright-core");
const [address, file] = process.argv.slice(2);
const PHONE = { viewport: { width: 390, height: 780 }, deviceScaleFactor: 1.5, isMobile: true, hasTouch: true };
const ONE = [[12, 80], [58, 8], [58, 92]];
const GERMAN = [ONE, ONE.map(([x, y]) => [x - 3, y + 2]), ONE.map(([x, y]) => [x + 3, y - 2])];

const browser = await chromium.launch({ executablePath: process.env.CHROMIUM ?? "/usr/bin/chromium", chromiumSandbox: false });

async function open(colorScheme) {
  const page = await (await browser.newContext({ ...PHONE, colorScheme })).newPage();
  await page.goto(address);
  await page.waitForFunction(() => !document.querySelector("#sharing").disabled);
  return page;
}

async function draw(page, points) {
  if (await page.locator("#clear").isEnabled()) await page.locator("#clear").click();
  const { x, y, width, height } = await page.locator("#pad").boundingBox();
  const [first, ...others] = points.map(([across, down]) => [x + (across / 100) * width, y + (down / 100) * height]);
  await page.mouse.move(...first);
  await page.mouse.down();
  for (const point of others) await page.mouse.move(...point, { steps: 10 });
  await page.mouse.up();
  await page.waitForFunction(() => document.querySelector("#said").textContent.startsWith("This device"));
  return page.textContent("#everyone");
}

async function teach(page, digit) {
  await page.locator("#digits button").nth(digit).click();
  await page.waitForFunction(() => /^(Right|Learnt|It tried)/.test(document.querySelector("#said").textContent));
  await page.evaluate(() => document.activeElement.blur());
  await page.mouse.move(1, 1);
}

const [first, second] = [await open("light"), await open("dark")];
let corrected;
for (const points of GERMAN) {
  await draw(first, points);
  await teach(first, 1);
  await first.evaluate(() => scrollTo(0, 0));
  corrected ??= await first.screenshot();
}
const number = (page) => page.textContent("#version").then((text) => Number(/\d+/.exec(text)[0]));
for (let seen = await number(second); (await draw(second, ONE)) !== "1"; seen = await number(second)) {
  await second.waitForFunction((before) => Number(/\d+/.exec(document.querySelector("#version").textContent)[0]) > before, seen);
}
const received = await second.screenshot();
await first.locator("#releases").scrollIntoViewIfNeeded();
await first.evaluate(() => scrollTo(0, document.body.scrollHeight));
const left = await first.screenshot();

const sheet = await (await browser.newContext({ deviceScaleFactor: 1 })).newPage();
const images = [corrected, left, received].map((png) => `<img src="data:image/png;base64,${png.toString("base64")}">`).join("");
await sheet.setViewportSize({ width: 1080, height: 740 });
await sheet.setContent(`<style>body{margin:0;display:flex;gap:18px;padding:18px;background:#e4e0d4;width:1044px}
  img{width:336px;border-radius:28px;box-shadow:0 0 0 6px #23282c,0 10px 30px #0004}</style>${images}`);
await sheet.waitForFunction(() => [...document.images].every((image) => image.complete));
await sheet.screenshot({ path: file, clip: { x: 0, y: 0, width: 1080, height: 18 * 2 + (336 * 780) / 390 } });
await browser.close();

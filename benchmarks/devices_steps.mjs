// Steps by plan with onnxruntime-web (wasm) in Node: each line on standard input is a number of steps to take.
//
// `node devices_steps.mjs DIST RUNTIME FOLDER NAME` answers with the CPU seconds that they took, user and system.

import { readFileSync } from "node:fs";
import { createInterface } from "node:readline";

const [, , dist, from, folder, name] = process.argv;
const parts = await import(`${dist}/parts.js`);
const read = (file) => new Uint8Array(readFileSync(`${folder}/${file}`));

const opened = await parts.proved(parts.readPlan(read(`${name}.plan`)), await parts.runtimes({ from }));
const whole = parts.decode(read(`${name}.case`));
const begun = parts.section(whole, "params/");
const batches = [];
for (let index = 0; whole.has(`batch/${index}/x`); index += 1) batches.push(parts.section(whole, `batch/${index}/`));
const training = new parts.Training(opened, begun, 1);

console.log(JSON.stringify({ runtime: opened.runtime.name }));
for await (const line of createInterface({ input: process.stdin })) {
  const before = process.cpuUsage();
  for (let step = 0; step < Number(line); step += 1) await training.step(batches[step % batches.length]);
  const { user, system } = process.cpuUsage(before);
  console.log(JSON.stringify({ seconds: (user + system) / 1e6 }));
}

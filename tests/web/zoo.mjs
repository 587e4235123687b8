// Train every model of the zoo by its plan on this runtime and compare with what torch made of the same batches.
//
// In Node: `node zoo.mjs DIST RUNTIME FOLDER NAME...` prints the result. In a browser a page imports `compare`.

/** Return for each model the runtime, how many arrays moved, and how far weights, losses and outputs are from torch's. */
export async function compare(parts, from, read, names) {
  const found = {};
  for (const name of names) found[name] = await one(parts, from, read, name);
  return found;
}

async function one(parts, from, read, name) {
  const opened = await parts.proved(parts.readPlan(await read(`${name}.plan`)), await parts.runtimes({ from }));
  const whole = parts.decode(await read(`${name}.case`));
  const of = (prefix) => parts.section(whole, prefix);
  const [begun, after, steady] = [of("params/"), of("after/"), of("steady/")];
  const [rates, losses] = [whole.get("rate").values, whole.get("loss").values];
  const training = new parts.Training(opened, begun, 3, begun, (step) => rates[step]);
  let loss = 0;
  for (let step = 0; step < losses.length; step += 1) {
    const got = await training.step(of(`batch/${step}/`));
    loss = Math.max(loss, Math.abs(got - losses[step]) / Math.max(Math.abs(losses[step]), 1e-2));
  }
  let [weights, moved] = [0, 0];
  for (const [key, expected] of after) {
    const places = [...steady.get(key).values.keys()].filter((place) => steady.get(key).values[place]);
    weights = Math.max(weights, distance(training.arrays.get(key).values, expected.values, places));
    if (expected.values.some((value, place) => value !== begun.get(key).values[place])) moved += 1;
  }
  const rows = new Map([["x", of("batch/0/").get("x")]]);
  const [ours, theirs] = [await opened.predict(training.arrays, rows), await opened.predict(after, rows)];
  const output = distance(ours.values, theirs.values, [...ours.values.keys()]);
  return { runtime: opened.runtime.name, steps: losses.length, moved, weights, loss, output };
}

/** The largest difference as a share of the expected array's largest value. */
function distance(found, expected, places) {
  let [apart, largest] = [0, 0];
  for (const place of places) {
    const [a, b] = [Number(found[place]), Number(expected[place])];
    apart = Math.max(apart, Number.isFinite(a) ? Math.abs(a - b) : Infinity);
    largest = Math.max(largest, Math.abs(b));
  }
  return largest ? apart / largest : apart;
}

if (typeof process === "object" && process.argv[1]?.endsWith("zoo.mjs")) {
  const { readFileSync } = await import("node:fs");
  const [, , dist, from, folder, ...names] = process.argv;
  const parts = await import(`${dist}/parts.js`);
  const read = async (name) => new Uint8Array(readFileSync(`${folder}/${name}`));
  console.log(JSON.stringify(await compare(parts, from, read, names)));
}

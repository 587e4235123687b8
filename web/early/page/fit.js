// Whether a training step is the one that a task asks for.

import { array } from "./codec.js";

const PLAN = ["epochs", "batch_size", "optimizer", "shuffle", "proximal", "start"];
const RELATIVE = 1e-4; // the tolerances of shoal.train.golden
const ABSOLUTE = 1e-7;

/** Return why this step cannot train a task, or "" when it can. */
export function unfit(spec, step) {
  const { optimizer, proximal, start = "global" } = spec.local;
  const unknown = Object.entries(spec.local).filter(([name, value]) => !PLAN.includes(name) && !says_nothing(value));
  const more = Object.entries(optimizer.options).filter(([name, value]) => name !== "lr" && value);
  if (spec.kind !== "training" || Object.keys(spec.extra).length > 0) return "only plain training tasks are known here";
  if (optimizer.name !== "sgd" || more.length > 0) return `only plain SGD is known here, not ${optimizer.name} ${more}`;
  if (unknown.length > 0) return `the local plan says ${unknown.map(([name]) => name)}, which is not known here`;
  if (start !== "global") return `training from a ${start} model is not known here`;
  if (proximal !== 0) return `the proximal penalty ${proximal} is not known here`;
  const [theirs, ours] = [Object.keys(spec.arrays), step.arrays].map((names) => names.sort().join(", "));
  return theirs === ours ? "" : `the step is for the arrays ${ours}; the task has ${theirs}`;
}

// a bound that is not there, a learning rate that stays
function says_nothing(value) {
  return value === null || value.kind === "constant";
}

/** Prove the step on the task's golden batch: throw when this runtime gives another loss or another change. */
export async function prove(step, arrays, golden, lr) {
  const [x, y] = [golden.get("batch/x"), golden.get("batch/y")];
  const batch = { count: y.shape[0], features: x.shape[1], x: x.values, y: y.values };
  const { loss, arrays: moved } = await step.run(arrays, batch, lr);
  compare("the loss", golden.get("loss").values, [loss]);
  const change = difference(arrays, moved);
  for (const [name, { values }] of golden) {
    if (name.startsWith("delta/")) compare(name, values, change.get(name.slice("delta/".length)).values);
  }
}

function compare(what, expected, got) {
  const tolerance = RELATIVE * Math.max(...expected.map(Math.abs)) + ABSOLUTE;
  const wrong = expected.findIndex((value, place) => !(Math.abs(value - got[place]) <= tolerance));
  if (wrong >= 0) throw new Error(`one training step gives ${what} ${got[wrong]}, the task says ${expected[wrong]}`);
}

/** Return after - before of every float32 array: what travels of this model. */
export function difference(before, after) {
  const change = new Map();
  for (const [name, { dtype, shape, values }] of before) {
    if (dtype !== "F32") continue;
    const moved = after.get(name).values;
    change.set(name, array(dtype, shape, Float32Array.from(values, (value, place) => moved[place] - value)));
  }
  return change;
}

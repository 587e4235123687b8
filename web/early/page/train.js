// Local training: what shoal.train.loop does, with the training step as an ONNX graph.

import * as ort from "./runtime/ort.wasm.min.mjs";
import { array } from "./codec.js";
import { take } from "./rows.js";
import { derive, permutation } from "./seeds.js";

const TYPES = { F32: "float32", F64: "float64" };
const RELATIVE = 1e-4;
const ABSOLUTE = 1e-7;
const BATCH = ["x", "y", "lr"];

ort.env.wasm.numThreads = 1; // more need SharedArrayBuffer, hence a cross-origin isolated page
ort.env.wasm.wasmPaths = new URL("./runtime/", import.meta.url).href;

/** The training step: (arrays, batch, lr) -> (arrays, loss). */
export class Step {
  #session;

  static async load(url) {
    const step = new Step();
    step.#session = await ort.InferenceSession.create(url, { executionProviders: ["wasm"] });
    return step;
  }

  /** The names of the model's arrays. */
  get arrays() {
    return this.#session.inputNames.filter((name) => !BATCH.includes(name));
  }

  /** Return {loss, arrays} after one step on a batch; arrays that are not trained stay as they are. */
  async run(arrays, batch, lr) {
    const feeds = {
      x: new ort.Tensor("float64", batch.x, [batch.count, batch.features]),
      y: new ort.Tensor("float64", batch.y, [batch.count]),
      lr: new ort.Tensor("float32", Float32Array.of(lr), []),
    };
    for (const name of this.arrays) feeds[name] = tensor(arrays.get(name));
    const results = await this.#session.run(feeds);
    const moved = new Map(arrays);
    for (const [name, result] of Object.entries(results)) {
      if (name.startsWith("after/")) moved.set(name.slice("after/".length), array("F32", result.dims, result.data));
    }
    return { loss: results.loss.data[0], arrays: moved };
  }
}

function tensor({ dtype, shape, values }) {
  return new ort.Tensor(TYPES[dtype], values, shape);
}

/** Return why this step cannot train a task, or "" when it can. */
export function unfit(spec, step) {
  const { optimizer, proximal } = spec.local;
  const more = Object.entries(optimizer.options).filter(([name, value]) => name !== "lr" && value);
  if (spec.kind !== "training" || Object.keys(spec.extra).length > 0) return "only plain training tasks are known here";
  if (optimizer.name !== "sgd" || more.length > 0) return `only plain SGD is known here, not ${optimizer.name} ${more}`;
  if (proximal !== 0) return `the proximal penalty ${proximal} is not known here`;
  const [theirs, ours] = [Object.keys(spec.arrays), step.arrays].map((names) => names.sort().join(", "));
  return theirs === ours ? "" : `the step is for the arrays ${ours}; the task has ${theirs}`;
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

/** Train for the plan's epochs; return {arrays, loss}, the loss being the mean over the last epoch. */
export async function train(step, plan, arrays, rows, seed) {
  const { lr } = plan.optimizer.options;
  let total = 0;
  for (let epoch = 0; epoch < plan.epochs; epoch += 1) {
    const order = plan.shuffle ? permutation(await derive(seed, epoch), rows.count) : [...Array(rows.count).keys()];
    total = 0;
    for (let first = 0; first < rows.count; first += plan.batch_size) {
      const batch = take(rows, order.slice(first, first + plan.batch_size));
      const { loss, arrays: moved } = await step.run(arrays, batch, lr);
      if (!Number.isFinite(loss)) throw new Error(`the loss is ${loss} in epoch ${epoch}: lower the learning rate`);
      arrays = moved;
      total += loss * batch.count;
    }
  }
  return { arrays, loss: total / rows.count };
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

// Local training: what shoal.train.loop does, with the training step as an ONNX graph.

import * as ort from "./runtime/ort.wasm.min.mjs";
import { array } from "./codec.js";
import { take } from "./rows.js";
import { derive, permutation } from "./seeds.js";

const TYPES = { F32: "float32", F64: "float64" };
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

// Local training by a plan: epochs, batches, the optimizer's state, dropout's numbers; and what a model is worth.

import { type NdArray, type Tree, make, sizeOf } from "./arrays.js";
import { ShoalError, Unsupported } from "./errors.js";
import { take } from "./examples.js";
import { uniform } from "./noise.js";
import type { LocalPlan, TaskSpec } from "./messages.js";
import { type GraphName, type Plan, freshState, prefixed, section, travelling } from "./plan.js";
import { type Rate, factor } from "./rates.js";
import type { Graph, Runtime } from "./runtime.js";
import { derive, permutation } from "./seeds.js";

/** Rows that are evaluated at once. */
const EVALUATED = 1024;
/** For how long training may keep its thread to itself. */
const BREATH_MS = 8;

/** How a task has its devices train: the part of its local plan that a plan's graphs do not hold. */
export interface Course {
  readonly epochs: number;
  readonly batch_size: number;
  readonly shuffle: boolean;
  /** The learning rate at the first step (0 for the one that the plan was exported with), and its factor at each. */
  readonly lr: number;
  readonly per_step: Rate;
}

/** Return how a round is trained here. Throws for what a plan does not hold. */
export function courseOf(spec: TaskSpec, round: number): Course {
  const local: LocalPlan = spec.local;
  if (local.rule !== null && local.rule !== undefined) {
    throw new Unsupported(`task ${spec.name} trains by a rule of its own`, "train it where its code is");
  }
  const lr = Number(local.optimizer.options?.["lr"] ?? 0) * factor(local.per_round as Rate, round - 1);
  return { epochs: local.epochs, batch_size: local.batch_size, shuffle: local.shuffle, lr, per_step: local.per_step as Rate };
}

/** Called after every step; it may end the training by throwing. */
export type OnStep = (step: number, loss: number) => void | Promise<void>;

/** What a training made: every array of the model, the mean loss of the last epoch, and the rows that counted. */
export interface Trained {
  readonly arrays: Map<string, NdArray>;
  readonly loss: number;
  readonly rows: number;
}

/** A plan on one runtime, its graphs opened when they are first needed. */
export class Opened {
  readonly plan: Plan;
  readonly runtime: Runtime;
  readonly #graphs = new Map<GraphName, Promise<Graph>>();

  constructor(plan: Plan, runtime: Runtime) {
    this.plan = plan;
    this.runtime = runtime;
  }

  async run(name: GraphName, given: Tree): Promise<Map<string, NdArray>> {
    if (!this.#graphs.has(name)) this.#graphs.set(name, this.runtime.open(this.plan.graphs.get(name)!));
    return (await this.#graphs.get(name)!).run(given);
  }

  /** Return the model's output for rows. */
  async predict(arrays: Tree, batch: Tree): Promise<NdArray> {
    const size = this.plan.manifest.rows;
    const rows = countOf(batch);
    if (size === null) return this.#output(arrays, batch);
    const found: NdArray[] = [];
    for (let first = 0; first < rows; first += size) {
      // the last rows are repeated to fill what the graph takes at once
      const order = Array.from({ length: size }, (_, place) => Math.min(first + place, rows - 1));
      found.push(await this.#output(arrays, take(batch, order)));
    }
    return joinedRows(found, rows);
  }

  async #output(arrays: Tree, batch: Tree): Promise<NdArray> {
    const found = await this.run("predict", new Map([...prefixed("array/", arrays), ...prefixed("batch/", batch)]));
    return (found.get("output") ?? found.get("output/0"))!;
  }

  /** Return the loss and the metrics over rows, in evaluation mode; {} without a row that counts. */
  async evaluate(arrays: Tree, batch: Tree): Promise<Record<string, number>> {
    const totals: Record<string, number> = {};
    let count = 0;
    for (const order of cuts(countOf(batch), this.plan.manifest.rows ?? EVALUATED, this.plan.manifest.rows !== null)) {
      const given = new Map([...prefixed("array/", arrays), ...prefixed("batch/", take(batch, order))]);
      for (const [name, value] of section(await this.run("evaluate", given), "measure/")) {
        totals[name] = (totals[name] ?? 0) + Number(value.values[0]) * order.length;
      }
      count += order.length;
    }
    return Object.fromEntries(Object.entries(totals).map(([name, total]) => [name, total / count]));
  }
}

/** A model in training: its arrays, its optimizer's state, and how many steps were taken. */
export class Training {
  readonly #opened: Opened;
  readonly #seed: number;
  readonly #rate: (step: number) => number;
  readonly #values: Map<string, NdArray>;
  steps = 0;

  /** `start` is what FedProx pulls to, `rate` the learning rate of each step. */
  constructor(opened: Opened, arrays: Tree, seed: number, start: Tree = arrays, rate?: (step: number) => number) {
    const { manifest } = opened.plan;
    this.#opened = opened;
    this.#seed = seed;
    this.#rate = rate ?? (() => manifest.learning_rate);
    this.#values = new Map([
      ...prefixed("array/", arrays),
      ...(manifest.proximal ? prefixed("start/", start) : []),
      ...prefixed("state/", freshState(manifest)),
    ]);
  }

  get arrays(): Map<string, NdArray> {
    return section(this.#values, "array/");
  }

  /** Take one step and return the loss before it. Throws for one that is not finite. */
  async step(batch: Tree): Promise<number> {
    const rate = make("F32", [], [this.#rate(this.steps)]);
    const given = new Map([...this.#values, ...prefixed("batch/", batch), ...this.#noise(countOf(batch))]);
    const found = await this.#opened.run("train", given.set("learning_rate", rate));
    const loss = Number(found.get("loss")!.values[0]);
    if (!Number.isFinite(loss)) {
      throw new ShoalError("not_finite", `step ${this.steps}: the loss is ${loss}`, "lower the learning rate, or check the data");
    }
    for (const [name, array] of section(found, "after/")) this.#values.set(name, array);
    this.steps += 1;
    return loss;
  }

  #noise(rows: number): [string, NdArray][] {
    return this.#opened.plan.manifest.noise.map((sides, index) => {
      const shape = sides.map(([times, plus]) => times * rows + plus);
      return [`noise/${index}`, make("F32", shape, uniform(this.#seed, this.steps, index, sizeOf(shape)))];
    });
  }
}

/** Train on all rows for the course's epochs. */
export async function train(
  opened: Opened,
  course: Course,
  arrays: Tree,
  rows: Tree,
  seed: number,
  start?: Tree,
  onStep: OnStep = () => {},
): Promise<Trained> {
  const breath = breathing();
  const lr = course.lr || opened.plan.manifest.learning_rate;
  const training = new Training(opened, arrays, seed, start, (step) => lr * factor(course.per_step, step));
  const count = countOf(rows);
  const fixed = opened.plan.manifest.rows;
  let [total, used] = [0, 0];
  for (let epoch = 0; epoch < course.epochs; epoch += 1) {
    const order = course.shuffle ? permutation(await derive(seed, epoch), count) : range(count);
    [total, used] = [0, 0];
    for (const places of cuts(count, fixed ?? course.batch_size, fixed !== null)) {
      const batch = take(rows, places.map((place) => order[place]!));
      const loss = await training.step(batch);
      total += loss * places.length;
      used += places.length;
      await onStep(training.steps, loss);
      await breath();
    }
  }
  if (used === 0) throw new ShoalError("no_rows", `${count} rows, the plan takes ${fixed} at once`, "observe more examples");
  return { arrays: training.arrays, loss: total / used, rows: used };
}

/** Return a call that lets this thread hear its other messages, now and then: a runtime answers without a pause. */
function breathing(): () => Promise<void> {
  let last = performance.now();
  return async () => {
    if (performance.now() - last < BREATH_MS) return;
    await new Promise<void>((resolve) => {
      const { port1, port2 } = new MessageChannel(); // a timer would cost 4 ms
      port1.onmessage = () => {
        port1.close();
        resolve();
      };
      port2.postMessage(null);
    });
    last = performance.now();
  };
}

/** Return after - before of every array that travels. */
export function changeOf(plan: Plan, before: Tree, after: Tree): Map<string, NdArray> {
  return new Map(travelling(plan.manifest).map((name) => [name, difference(before.get(name)!, after.get(name)!)]));
}

function difference(before: NdArray, after: NdArray): NdArray {
  const made = make(before.dtype, before.shape);
  const [target, left, right] = [made.values, before.values, after.values];
  for (let i = 0; i < target.length; i += 1) {
    if (target instanceof BigInt64Array) target[i] = (right[i] as bigint) - (left[i] as bigint);
    else target[i] = (right[i] as number) - (left[i] as number);
  }
  return made;
}

/** Scale the trainable part of a change so that its length is `most` at most, and return it. null bounds nothing. */
export function clipped(plan: Plan, change: Map<string, NdArray>, most: number | null): Map<string, NdArray> {
  const names = plan.manifest.arrays.filter(({ role }) => role === "trainable").map(({ name }) => name);
  const length = lengthOf(new Map(names.map((name) => [name, change.get(name)!])));
  if (most === null || length <= most) return change;
  for (const name of names) {
    const values = change.get(name)!.values as Float32Array;
    for (let i = 0; i < values.length; i += 1) values[i] = values[i]! * (most / length);
  }
  return change;
}

/** Return the Euclidean length of a change: what a person is told about it. */
export function lengthOf(change: Tree): number {
  let squares = 0;
  for (const { values } of change.values()) for (const value of values) squares += Number(value) ** 2;
  return Math.sqrt(squares);
}

/** Return the number of rows of a batch. */
export function countOf(batch: Tree): number {
  for (const { shape } of batch.values()) return shape[0] ?? 0;
  return 0;
}

function range(count: number): number[] {
  return Array.from({ length: count }, (_, place) => place);
}

function* cuts(count: number, size: number, whole: boolean): Generator<number[]> {
  for (let first = 0; first < count; first += size) {
    if (whole && first + size > count) return;
    yield range(Math.min(size, count - first)).map((place) => first + place);
  }
}

// a graph of one fixed size may give several outputs for a row
function joinedRows(pieces: readonly NdArray[], rows: number): NdArray {
  const [first] = pieces as [NdArray, ...NdArray[]];
  const [side = 1, ...shape] = first.shape;
  const size = sizeOf(shape);
  const made = make(first.dtype, [rows, ...shape]);
  const target = made.values as Float32Array;
  pieces.forEach((piece, place) => {
    const left = Math.min(side, rows - place * side);
    target.set((piece.values as Float32Array).subarray(0, left * size), place * side * size);
  });
  return made;
}

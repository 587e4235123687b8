// The golden step: a runtime proves itself on a batch with known results before it trains.

import { type NdArray, type Tree, dtypeOf, make, sizeOf } from "./arrays.js";
import { RuntimeMismatch } from "./errors.js";
import { uniform } from "./noise.js";
import { type Drawn, type GraphName, type Manifest, type Plan, prefixed, section } from "./plan.js";
import type { Runtime } from "./runtime.js";
import { Opened, Training } from "./training.js";

const PRODUCTS = 4;
const DRAWN = 1 << 20;

/** Return the plan on the first runtime that passes its golden step. Throws RuntimeMismatch when none does. */
export async function proved(plan: Plan, runtimes: readonly Runtime[]): Promise<Opened> {
  const problems: string[] = [];
  for (const runtime of runtimes) {
    const opened = new Opened(plan, runtime);
    const found = await mismatches(opened);
    if (found.length === 0) return opened;
    problems.push(`${runtime.name}: ${found.slice(0, 3).join("; ")}`);
  }
  throw new RuntimeMismatch(`the golden step of task ${plan.manifest.task} gives another result here (${problems.join(" | ")})`);
}

/** Return a sentence for every result of the golden step that is not as expected. */
export async function mismatches(opened: Opened): Promise<string[]> {
  const { manifest, golden } = opened.plan;
  const params = start(manifest, golden);
  const batch = section(golden, "batch/");
  const found: string[] = [];
  const check = (what: string, expected: NdArray, got: readonly number[], size = 1): void => {
    const first = Math.abs(Number(expected.values[0]));
    const tolerance = manifest.golden.relative * first + manifest.golden.absolute * Math.sqrt(size);
    const distance = Math.max(...got.map((value, place) => Math.abs(value - Number(expected.values[place]))));
    if (!(distance <= tolerance)) found.push(`${what} is off by ${distance.toPrecision(3)}, ${tolerance.toPrecision(3)} is allowed`);
  };
  try {
    const training = new Training(opened, params, manifest.golden.seed);
    check("the loss", golden.get("loss")!, [await training.step(batch)]);
    for (const [name, expected] of section(golden, "change/")) {
      const moved = change(params.get(name)!, training.arrays.get(name)!, golden.get(`rounding/${name}`));
      check(`the change of ${name}`, expected, measures(moved), moved.length);
    }
    const given = new Map([...prefixed("array/", params), ...prefixed("batch/", batch)]);
    for (const graph of [...opened.plan.graphs.keys()].filter((name) => name !== "train").sort() as GraphName[]) {
      for (const [name, value] of await opened.run(graph, given)) {
        const expected = golden.get(`${graph}/${name}`);
        if (expected !== undefined) check(`${graph}'s ${name}`, expected, measures(numbers(value)), value.values.length);
      }
    }
  } catch (error) {
    // a runtime says in errors of its own that it lacks an operator: it cannot train this, whatever the reason
    found.push((error as Error).message);
  }
  return found;
}

function start(manifest: Manifest, golden: Tree): Map<string, NdArray> {
  const { seed, drawn } = manifest.golden;
  return new Map(
    manifest.arrays.map(({ name, shape, dtype }) => {
      const rule = drawn[name];
      return [name, rule ? make(dtypeOf(dtype), shape, draw(rule, seed, sizeOf(shape))) : golden.get(`start/${name}`)!];
    }),
  );
}

function draw(rule: Drawn, seed: number, size: number): Float64Array {
  const numbers = Float64Array.from(uniform(seed, 0, DRAWN + rule.index, size), (u) => rule.middle + rule.spread * (2 * u - 1));
  return numbers.map((value) => Math.min(Math.max(value, rule.low), rule.high));
}

function numbers({ values }: NdArray): Float64Array {
  return Float64Array.from(values as ArrayLike<number | bigint> as ArrayLike<number>, Number);
}

function change(before: NdArray, after: NdArray, rounding: NdArray | undefined): Float64Array {
  const [left, right] = [numbers(before), numbers(after)];
  const moved = right.map((value, place) => value - left[place]!);
  for (const place of (rounding?.values ?? []) as Int32Array) moved[place] = 0;
  return moved;
}

/** Return the Euclidean length of an array, and its products with pseudorandom arrays of numbers in [-1, 1). */
function measures(array: Float64Array): number[] {
  const products = Array.from({ length: PRODUCTS }, (_, index) => {
    const signs = uniform(0, 0, index, array.length);
    return array.reduce((sum, value, place) => sum + value * (2 * signs[place]! - 1), 0);
  });
  return [Math.sqrt(array.reduce((sum, value) => sum + value * value, 0)), ...products];
}

// What a device observed: examples that never leave it. Of each run of 1/holdout one is held out and never trained on;
// which one follows from the device's name and the example's number, so it stays the same whatever is removed.

import { type NdArray, type Tree, make, sizeOf, type DType } from "./arrays.js";
import { DataError } from "./errors.js";
import type { Kept } from "./kept.js";
import { Lock } from "./locks.js";
import { derive } from "./seeds.js";
import { Stamp } from "./stamp.js";

/** How many examples stay, the newest ones, and for how many seconds (for ever without `age`). */
export interface Retention {
  readonly count?: number;
  readonly age?: number;
}

/** The dtype and shape of one example's arrays, by name. */
export type Layout = ReadonlyMap<string, { readonly dtype: DType; readonly shape: readonly number[] }>;

/** What an app may give for one array: of one example, or of several along a first axis. */
export type Given = number | NdArray | Float32Array | Float64Array | Int32Array | Uint8Array | readonly Given[];

interface Example {
  readonly number: number;
  readonly at: number;
  readonly held: boolean;
  readonly arrays: ReadonlyMap<string, NdArray>;
}

const MOST = 10_000;
const COUNTED = "observed";

export class Examples {
  readonly #kept: Kept;
  readonly #stamp: Stamp;
  readonly #lock: Lock;
  readonly layout: Layout;
  readonly #every: number;
  readonly #seed: number;
  readonly #retention: Retention;
  readonly #clock: () => number;
  #examples: Example[] = [];
  #observed = 0;

  private constructor(kept: Kept, lock: Lock, layout: Layout, every: number, seed: number, settings: ExampleSettings) {
    this.#kept = kept;
    this.#stamp = new Stamp(kept, "examples");
    this.#lock = lock;
    this.layout = layout;
    this.#every = every;
    this.#seed = seed;
    this.#retention = settings.retention ?? {};
    this.#clock = settings.clock ?? (() => Date.now() / 1000);
  }

  /** Open the examples of a device. `holdout` is the share that is held out, at most a half. */
  static async open(kept: Kept, name: string, layout: Layout, settings: ExampleSettings = {}): Promise<Examples> {
    const { holdout = 0.2 } = settings;
    if (!(holdout >= 0 && holdout <= 0.5)) throw new DataError(`a holdout of ${holdout}`, "give a share from 0 to 0.5");
    const every = holdout > 0 ? Math.round(1 / holdout) : 0;
    const seed = await derive(0, name, "holdout");
    const examples = new Examples(kept, new Lock(`shoal-${name}-examples`), layout, every, seed, settings);
    await examples.catchUp();
    return examples;
  }

  /** Take what another tab observed, and remove what retention does not allow any more. */
  catchUp(): Promise<void> {
    return this.#lock.hold(async () => {
      await this.#caughtUp();
      await this.#tidied();
    });
  }

  async #caughtUp(): Promise<void> {
    if (!(await this.#stamp.moved())) return;
    const every = await this.#kept.all<Example>("examples");
    this.#examples = every.filter((each) => this.#fits(each)).sort((a, b) => a.number - b.number);
    this.#observed = (await this.#kept.get<number>("device", COUNTED)) ?? 0;
  }

  // a task may be published anew with other arrays: what was observed for the former is of no use then
  #fits({ arrays }: Example): boolean {
    const alike = ([name, { dtype, shape }]: [string, Layout extends ReadonlyMap<string, infer T> ? T : never]): boolean => {
      const array = arrays.get(name);
      return array?.dtype === dtype && array.shape.join() === shape.join();
    };
    return arrays.size === this.layout.size && [...this.layout].every(alike);
  }

  /** Keep one example, or several, durable when the promise is fulfilled: all or none. Throws DataError for what the task cannot use. */
  async add(given: Readonly<Record<string, Given>>): Promise<void> {
    const names = Object.keys(given).sort();
    const wanted = [...this.layout.keys()].sort();
    if (names.join() !== wanted.join()) throw new DataError(`an example with ${names}`, `the task takes ${wanted}`);
    const rows = rowsOf(new Map(names.map((name) => [name, cast(name, given[name]!, this.layout)])));
    if (rows.length > 0) await this.#lock.hold(() => this.#added(rows));
  }

  async #added(rows: readonly Map<string, NdArray>[]): Promise<void> {
    await this.#caughtUp();
    const at = this.#clock();
    const added: Example[] = [];
    for (const arrays of rows) {
      const number = this.#observed + added.length + 1;
      added.push({ number, at, held: await this.#isHeld(number), arrays });
    }
    const every = [...this.#examples, ...added];
    const gone = new Set(this.#outlived(every));
    await this.#stamp.change([
      ...added.filter((each) => !gone.has(each)).map((each) => ({ store: "examples", key: each.number, value: each }) as const),
      { store: "device", key: COUNTED, value: this.#observed + added.length },
      ...this.#examples.filter((each) => gone.has(each)).map((each) => ({ store: "examples", key: each.number }) as const),
    ]);
    this.#observed += added.length;
    this.#examples = every.filter((each) => !gone.has(each));
  }

  async #isHeld(number: number): Promise<boolean> {
    if (this.#every === 0) return false;
    const block = Math.floor((number - 1) / this.#every);
    return (number - 1) % this.#every === (await derive(this.#seed, block)) % this.#every;
  }

  #outlived(examples: readonly Example[]): Example[] {
    const { count = MOST, age = Number.POSITIVE_INFINITY } = this.#retention;
    const newest = examples.at(-1)?.number ?? 0;
    const oldest = this.#clock() - age;
    return examples.filter((each) => each.number <= newest - count || each.at < oldest);
  }

  async #tidied(): Promise<void> {
    const gone = this.#outlived(this.#examples);
    if (gone.length === 0) return;
    await this.#stamp.change(gone.map((each) => ({ store: "examples", key: each.number })));
    this.#examples = this.#examples.filter((each) => !gone.includes(each));
  }

  count(held: boolean): number {
    return this.#examples.filter((each) => each.held === held).length;
  }

  /** Another mark whenever there are other examples. */
  mark(held: boolean): string {
    const examples = this.#examples.filter((each) => each.held === held);
    return `${examples.at(-1)?.number ?? 0}:${examples.length}`;
  }

  /** Return the examples that are held out, or those that are not, stacked; empty when there are none. */
  rows(held: boolean): Map<string, NdArray> {
    const examples = this.#examples.filter((each) => each.held === held);
    if (examples.length === 0) return new Map();
    return new Map([...this.layout.keys()].map((name) => [name, stack(examples.map((each) => each.arrays.get(name)!))]));
  }
}

export interface ExampleSettings {
  readonly holdout?: number;
  readonly retention?: Retention;
  readonly clock?: () => number;
}

/** Return what an app gave as one array, as [rows, ...] in the layout's dtype. Throws DataError. */
export function cast(name: string, given: Given, layout: Layout): NdArray {
  const { dtype, shape } = layout.get(name)!;
  const rows = rowCount(name, shapeOf(name, given), shape);
  const found = numbersOf(given);
  if (!found.every(Number.isFinite)) throw new DataError(`${name} holds NaN or infinity`, "correct the example or leave it out");
  if (!dtype.startsWith("F") && !found.every(Number.isInteger)) throw new DataError(`${name} holds fractions`, `the task takes ${dtype}`);
  return make(dtype, [rows, ...shape], found);
}

// the numbers of one example may come in one row, as a typed array holds them, and one number as it is
function rowCount(name: string, found: readonly number[], shape: readonly number[]): number {
  const size = sizeOf(shape);
  const [first = 0, ...others] = found;
  if (found.join() === shape.join() || (found.length === 1 && first === size) || (found.length === 0 && size === 1)) return 1;
  if (found.length > 0 && (others.join() === shape.join() || (others.length === 1 && others[0] === size))) return first;
  throw new DataError(`${name} of shape [${found}]`, `one example has [${shape}], several one axis more`);
}

function shapeOf(name: string, given: Given): readonly number[] {
  if (typeof given === "number") return [];
  if (!isList(given)) return "dtype" in given ? given.shape : [given.length];
  const shapes = given.map((each) => shapeOf(name, each));
  if (shapes.some((shape) => shape.join() !== shapes[0]!.join())) throw new DataError(`${name} with rows of several shapes`, "give them one shape");
  return [given.length, ...(shapes[0] ?? [])];
}

function numbersOf(given: Given): number[] {
  if (typeof given === "number") return [given];
  if (isList(given)) return given.flatMap(numbersOf);
  return Array.from("dtype" in given ? plain(given) : given);
}

function isList(given: Given): given is readonly Given[] {
  return Array.isArray(given);
}

function plain(array: NdArray): ArrayLike<number> {
  return array.values instanceof BigInt64Array ? Array.from(array.values, Number) : array.values;
}

/** Return how many rows the arrays of a batch have. Throws DataError where they have unlike numbers of them. */
export function rowsIn(batch: Tree): number {
  const lengths = [...batch].map(([name, { shape }]) => `${name} ${shape[0]}`);
  const [count = 0, ...others] = new Set([...batch.values()].map(({ shape }) => shape[0]!));
  if (others.length > 0) throw new DataError(`examples with rows of ${lengths}`, "give every array one row for each example");
  return count;
}

function rowsOf(batch: Tree): Map<string, NdArray>[] {
  const rows = Array.from({ length: rowsIn(batch) }, (_, row) => row);
  return rows.map((row) => new Map([...batch].map(([name, array]) => [name, rowOf(array, row)])));
}

function rowOf({ dtype, shape: [, ...shape], values }: NdArray, row: number): NdArray {
  const size = sizeOf(shape);
  return { dtype, shape, values: values.slice(row * size, (row + 1) * size) };
}

/** Return arrays of one shape along a new first axis. */
export function stack(arrays: readonly NdArray[]): NdArray {
  const [first] = arrays as [NdArray];
  const size = sizeOf(first.shape);
  const made = make(first.dtype, [arrays.length, ...first.shape]);
  arrays.forEach((array, place) => (made.values as Float64Array).set(array.values as Float64Array, place * size));
  return made;
}

/** Return some rows of a batch, in this order. */
export function take(batch: Tree, order: readonly number[]): Map<string, NdArray> {
  return new Map([...batch].map(([name, array]) => [name, taken(array, order)]));
}

function taken(array: NdArray, order: readonly number[]): NdArray {
  const [, ...shape] = array.shape;
  const size = sizeOf(shape);
  const made = make(array.dtype, [order.length, ...shape]);
  const target = made.values as Float64Array;
  const values = array.values as Float64Array;
  order.forEach((row, place) => target.set(values.subarray(row * size, (row + 1) * size), place * size));
  return made;
}

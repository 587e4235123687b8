// A plan: a training step, a prediction and an evaluation as ONNX graphs, with their manifest and golden step.

import { type DType, type NdArray, type Tree, decode, dtypeOf, make } from "./arrays.js";
import { Tampered } from "./errors.js";

export const FORMAT = 1;
/** Larger plans are not read: a plan holds no weights. */
export const MOST_BYTES = 64 << 20;

export type GraphName = "train" | "predict" | "evaluate";
export type Role = "trainable" | "buffer" | "counter" | "frozen" | "local";

export interface ArrayEntry {
  readonly name: string;
  readonly shape: readonly number[];
  readonly dtype: string;
}

/** An array of the golden step that is drawn: clip(middle + spread * (2 u - 1), low, high). */
export interface Drawn {
  readonly index: number;
  readonly middle: number;
  readonly spread: number;
  readonly low: number;
  readonly high: number;
}

export interface Manifest {
  readonly format: number;
  readonly task: string;
  readonly arrays: readonly (ArrayEntry & { readonly role: Role })[];
  readonly batch: readonly ArrayEntry[];
  readonly state: readonly ArrayEntry[];
  /** Shapes of the uniform numbers of a step; each size is a * rows + b. */
  readonly noise: readonly (readonly (readonly [number, number])[])[];
  readonly learning_rate: number;
  readonly graphs: Readonly<Record<string, { readonly inputs: readonly string[]; readonly outputs: readonly string[] }>>;
  readonly golden: {
    readonly seed: number;
    readonly rows: number;
    readonly drawn: Readonly<Record<string, Drawn>>;
    readonly relative: number;
    readonly absolute: number;
  };
  /** The one number of rows that the graphs take, or null for any. */
  readonly rows: number | null;
  readonly proximal: boolean;
}

export interface Plan {
  readonly manifest: Manifest;
  readonly graphs: ReadonlyMap<GraphName, Uint8Array<ArrayBuffer>>;
  readonly golden: Tree;
}

/** Read a plan. Throws Tampered for what is not whole. */
export function readPlan(data: Uint8Array): Plan {
  if (data.length > MOST_BYTES) throw new Tampered(`a plan of ${data.length} bytes`);
  const tree = decode(data);
  const manifest = JSON.parse(new TextDecoder("utf-8", { fatal: true }).decode(bytes(tree, "manifest"))) as Manifest;
  if (manifest.format !== FORMAT) throw new Tampered(`a plan of format ${manifest.format}, this device reads ${FORMAT}`);
  const graphs = new Map<GraphName, Uint8Array<ArrayBuffer>>();
  for (const name of Object.keys(manifest.graphs) as GraphName[]) graphs.set(name, bytes(tree, `graph/${name}`));
  if (!graphs.has("train") || !graphs.has("predict")) throw new Tampered("a plan without a training or a prediction");
  return { manifest, graphs, golden: section(tree, "golden/") };
}

function bytes(tree: Tree, name: string): Uint8Array<ArrayBuffer> {
  const found = tree.get(name);
  if (found === undefined || found.dtype !== "U8") throw new Tampered(`a plan without ${name}`);
  return found.values as Uint8Array<ArrayBuffer>;
}

/** Return the arrays whose names begin with `prefix`, without it. */
export function section(tree: Tree, prefix: string): Map<string, NdArray> {
  const found = [...tree].filter(([name]) => name.startsWith(prefix));
  return new Map(found.map(([name, array]) => [name.slice(prefix.length), array]));
}

/** Return arrays under names that begin with `prefix`. */
export function prefixed(prefix: string, tree: Tree): Map<string, NdArray> {
  return new Map([...tree].map(([name, array]) => [prefix + name, array]));
}

/** Return zeros for the optimizer's state: it begins so with every training. */
export function freshState(manifest: Manifest): Map<string, NdArray> {
  return new Map(manifest.state.map(({ name, shape, dtype }) => [name, make(dtypeOf(dtype), shape)]));
}

/** Return the dtype and shape of one row of a batch, by name. */
export function layoutOf(manifest: Manifest): Map<string, { dtype: DType; shape: readonly number[] }> {
  return new Map(manifest.batch.map(({ name, shape, dtype }) => [name, { dtype: dtypeOf(dtype), shape }]));
}

/** Return the names of a model's arrays that travel in an update. */
export function travelling(manifest: Manifest): string[] {
  return manifest.arrays.filter(({ role }) => role !== "frozen" && role !== "local").map(({ name }) => name);
}

/** Return the names of a model's arrays that training may move. */
export function trained(manifest: Manifest): string[] {
  return manifest.arrays.filter(({ role }) => role !== "frozen").map(({ name }) => name);
}

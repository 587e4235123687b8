// Arrays with the dtypes of safetensors, trees of them, and their canonical bytes, from which every digest comes.

import { Tampered, Unsupported } from "./errors.js";

export type Values =
  | Float64Array
  | Float32Array
  | BigInt64Array
  | Int32Array
  | Int16Array
  | Int8Array
  | Uint8Array;

export type DType = "F64" | "F32" | "I64" | "I32" | "I16" | "I8" | "U8" | "BOOL";

/** One array: C order, little-endian; BOOL holds bytes of 0 and 1. */
export interface NdArray {
  readonly dtype: DType;
  readonly shape: readonly number[];
  readonly values: Values;
}

/** Arrays by name. A Map: an object would put names that are numbers first, and swallow "__proto__". */
export type Tree = ReadonlyMap<string, NdArray>;

const KINDS = {
  F64: Float64Array,
  F32: Float32Array,
  I64: BigInt64Array,
  I32: Int32Array,
  I16: Int16Array,
  I8: Int8Array,
  U8: Uint8Array,
  BOOL: Uint8Array,
} as const;

const NUMPY: Readonly<Record<string, DType>> = {
  float64: "F64",
  float32: "F32",
  int64: "I64",
  int32: "I32",
  int16: "I16",
  int8: "I8",
  uint8: "U8",
  bool: "BOOL",
};

const MAX_HEADER = 4 << 20;

interface Entry {
  dtype: string;
  shape: number[];
  data_offsets: [number, number];
}

/** Return numpy's name of a dtype as safetensors calls it. Throws for one that JavaScript cannot hold. */
export function dtypeOf(numpy: string): DType {
  const found = NUMPY[numpy];
  if (found === undefined) throw new Unsupported(`dtype ${numpy}`, `use one of ${Object.keys(NUMPY)}`);
  return found;
}

/** Return the number of elements of a shape. */
export function sizeOf(shape: readonly number[]): number {
  return shape.reduce((product, side) => product * side, 1);
}

/** Return an array of zeros, or with the given numbers. */
export function make(dtype: DType, shape: readonly number[], numbers?: ArrayLike<number>): NdArray {
  const values = new KINDS[dtype](sizeOf(shape));
  if (numbers !== undefined) {
    if (numbers.length !== values.length) throw new Error(`${numbers.length} numbers for the shape [${shape}]`);
    if (values instanceof BigInt64Array) for (let i = 0; i < values.length; i += 1) values[i] = BigInt(numbers[i]!);
    else values.set(numbers);
  }
  return { dtype, shape, values };
}

/** Order names by code point, as Python does; JavaScript's own order is that of UTF-16 units. */
export function byCodePoint(left: string, right: string): number {
  const [a, b] = [Array.from(left), Array.from(right)];
  for (let i = 0; i < Math.min(a.length, b.length); i += 1) {
    if (a[i] !== b[i]) return a[i]!.codePointAt(0)! - b[i]!.codePointAt(0)!;
  }
  return a.length - b.length;
}

/** Return the canonical bytes of a tree: names sorted, no metadata, the header padded to a multiple of eight. */
export function encode(tree: Tree): Uint8Array<ArrayBuffer> {
  const named = [...tree].sort(([a], [b]) => byCodePoint(a, b));
  let offset = 0;
  const entries = named.map(([name, { dtype, shape, values }]) => {
    const start = offset;
    offset += values.byteLength;
    return `${JSON.stringify(name)}:${JSON.stringify({ dtype, shape, data_offsets: [start, offset] })}`;
  });
  let text = new TextEncoder().encode(`{${entries.join(",")}}`);
  text = joined([text, new Uint8Array(-text.length & 7).fill(0x20)]);
  return joined([littleEndian(text.length, 8), text, ...named.map(([, array]) => bytesOf(array.values))]);
}

/** Return the tree in a file. Throws for a hole, an overlap, a length that is wrong, or a dtype that is unknown here. */
export function decode(data: Uint8Array): Map<string, NdArray> {
  if (data.length < 8) throw new Tampered(`a safetensors file of ${data.length} bytes`);
  const length = Number(new DataView(data.buffer, data.byteOffset, 8).getBigUint64(0, true));
  if (length > MAX_HEADER) throw new Tampered(`a safetensors header of ${length} bytes: the cap is ${MAX_HEADER}`);
  const text = new TextDecoder("utf-8", { fatal: true }).decode(data.subarray(8, 8 + length));
  const header = JSON.parse(text) as Record<string, Entry>;
  const entries = Object.entries(header).filter(([name]) => name !== "__metadata__");
  entries.sort(([, a], [, b]) => a.data_offsets[0] - b.data_offsets[0]);
  const tree = new Map<string, NdArray>();
  let end = 0;
  for (const [name, entry] of entries) {
    const [start, stop] = entry.data_offsets;
    if (start !== end) throw new Tampered(`array ${name} begins at byte ${start}, the one before it ends at ${end}`);
    tree.set(name, read(name, entry, data.slice(8 + length + start, 8 + length + stop)));
    end = stop;
  }
  if (8 + length + end !== data.length) throw new Tampered(`a safetensors file of ${data.length} bytes is cut or too long`);
  return tree;
}

// `bytes` is a copy, so that the values begin at an aligned address
function read(name: string, { dtype, shape }: Entry, bytes: Uint8Array<ArrayBuffer>): NdArray {
  if (!(dtype in KINDS)) throw new Tampered(`array ${name} has dtype ${dtype}, which cannot be held here`);
  const kind = KINDS[dtype as DType];
  if (sizeOf(shape) * kind.BYTES_PER_ELEMENT !== bytes.length) throw new Tampered(`array ${name} has ${bytes.length} bytes`);
  return { dtype: dtype as DType, shape, values: new kind(bytes.buffer) };
}

/** Return the trees whose names begin with "delta/", "extra/" and so on, by what stands before the first slash. */
export function split(tree: Tree): Map<string, Map<string, NdArray>> {
  const trees = new Map<string, Map<string, NdArray>>();
  for (const [name, array] of tree) {
    const slash = name.indexOf("/");
    const kind = name.slice(0, slash);
    if (!trees.has(kind)) trees.set(kind, new Map());
    trees.get(kind)!.set(name.slice(slash + 1), array);
  }
  return trees;
}

/** Return the bytes that an array's values lie in. */
export function bytesOf(values: Values): Uint8Array<ArrayBuffer> {
  return new Uint8Array(values.buffer as ArrayBuffer, values.byteOffset, values.byteLength);
}

/** Return a number in `size` bytes; it is below 2**32. */
export function littleEndian(number: number, size: number): Uint8Array<ArrayBuffer> {
  const bytes = new Uint8Array(size);
  new DataView(bytes.buffer).setUint32(0, number, true);
  return bytes;
}

/** Return bytes one after the other. */
export function joined(parts: readonly Uint8Array[]): Uint8Array<ArrayBuffer> {
  const result = new Uint8Array(parts.reduce((size, part) => size + part.length, 0));
  let offset = 0;
  for (const part of parts) {
    result.set(part, offset);
    offset += part.length;
  }
  return result;
}

// The canonical safetensors form of a tree (a Map from names to {dtype, shape, values}) and digests.

const ARRAYS = {
  F64: Float64Array,
  F32: Float32Array,
  I64: BigInt64Array,
  I32: Int32Array,
  I16: Int16Array,
  I8: Int8Array,
  U8: Uint8Array,
  BOOL: Uint8Array,
};
const MAX_HEADER = 4 << 20;

/** Return an array of a tree. */
export function array(dtype, shape, values) {
  return { dtype, shape, values };
}

/** Order names by code point, as Python does; JavaScript's own order is that of UTF-16 units. */
export function byCodePoint(left, right) {
  const [a, b] = [Array.from(left), Array.from(right)];
  for (let i = 0; i < Math.min(a.length, b.length); i += 1) {
    if (a[i] !== b[i]) return a[i].codePointAt(0) - b[i].codePointAt(0);
  }
  return a.length - b.length;
}

/** Return the canonical bytes of a tree: names sorted, no metadata, the header padded to a multiple of eight. */
export function encode(tree) {
  const names = [...tree.keys()].sort(byCodePoint);
  let offset = 0;
  // built as text: an object would put names that are numbers first, and swallow "__proto__"
  const entries = names.map((name) => {
    const { dtype, shape, values } = tree.get(name);
    const start = offset;
    offset += values.byteLength;
    return `${JSON.stringify(name)}:${JSON.stringify({ dtype, shape, data_offsets: [start, offset] })}`;
  });
  let text = new TextEncoder().encode(`{${entries.join(",")}}`);
  text = joined([text, new Uint8Array(-text.length & 7).fill(0x20)]);
  const arrays = names.map((name) => bytesOf(tree.get(name).values));
  return joined([littleEndian(text.length, 8), text, ...arrays]);
}

/** Return the tree in a file. Throws for a file with a hole, an overlap, or a type that JavaScript lacks. */
export function decode(data) {
  const view = new DataView(data.buffer, data.byteOffset, data.byteLength);
  const length = Number(view.getBigUint64(0, true));
  if (length > MAX_HEADER) throw new Error(`a safetensors header of ${length} bytes: the cap is ${MAX_HEADER}`);
  const text = new TextDecoder("utf-8", { fatal: true }).decode(data.subarray(8, 8 + length));
  const entries = Object.entries(JSON.parse(text)).filter(([name]) => name !== "__metadata__");
  entries.sort(([, a], [, b]) => a.data_offsets[0] - b.data_offsets[0]);
  const tree = new Map();
  let end = 0;
  for (const [name, entry] of entries) {
    const [start, stop] = entry.data_offsets;
    if (start !== end) throw new Error(`array ${name} begins at byte ${start}, the one before it ends at ${end}`);
    tree.set(name, read(name, entry, data.slice(8 + length + start, 8 + length + stop)));
    end = stop;
  }
  if (8 + length + end !== data.length) throw new Error(`a safetensors file of ${data.length} bytes is cut or too long`);
  return tree;
}

// `bytes` is a copy, so that the values begin at an aligned address
function read(name, { dtype, shape }, bytes) {
  const kind = ARRAYS[dtype];
  if (kind === undefined) throw new Error(`array ${name} has dtype ${dtype}, which this page cannot hold`);
  const size = shape.reduce((product, side) => product * side, 1);
  if (size * kind.BYTES_PER_ELEMENT !== bytes.length) throw new Error(`array ${name} has ${bytes.length} bytes`);
  return array(dtype, shape, new kind(bytes.buffer));
}

/** Return a report's body: the head's length, the head in JSON, the arrays. */
export function frame(head, arrays) {
  const text = new TextEncoder().encode(JSON.stringify(head));
  return joined([littleEndian(text.length, 4), text, arrays]);
}

/** Return the SHA-256 of bytes, in hexadecimal. */
export async function digest(bytes) {
  return toHex(new Uint8Array(await crypto.subtle.digest("SHA-256", bytes)));
}

/** Return bytes in base64. */
export function base64(bytes) {
  return btoa(Array.from(bytes, (byte) => String.fromCharCode(byte)).join(""));
}

function toHex(bytes) {
  return Array.from(bytes, (byte) => byte.toString(16).padStart(2, "0")).join("");
}

function bytesOf(values) {
  return new Uint8Array(values.buffer, values.byteOffset, values.byteLength);
}

function littleEndian(number, size) {
  const bytes = new Uint8Array(size);
  new DataView(bytes.buffer).setUint32(0, number, true);
  return bytes;
}

function joined(parts) {
  const result = new Uint8Array(parts.reduce((size, part) => size + part.length, 0));
  let offset = 0;
  for (const part of parts) {
    result.set(part, offset);
    offset += part.length;
  }
  return result;
}

// Calls to the coordinator. The session's cookie says who calls; an error carries what is wrong and the way out.

export class Refused extends Error {
  constructor(status, told) {
    super(`${told.problem ?? "no answer"}: ${told.fix ?? "try again"}`);
    this.status = status;
    this.code = told.code ?? "";
  }
}

const PATIENCE = 30_000;

export async function call(method, path, body) {
  const answer = await fetch(path, {
    method,
    headers: body === undefined ? {} : { "Content-Type": "application/json" },
    body: body === undefined ? undefined : JSON.stringify(body),
    signal: AbortSignal.timeout(PATIENCE),
    credentials: "same-origin",
  });
  if (!answer.ok) throw new Refused(answer.status, await answer.json().catch(() => ({ problem: `status ${answer.status}` })));
  return answer.status === 204 ? null : answer.json();
}

export const get = (path) => call("GET", path);
export const at = (task, rest = "") => `/v1/tasks/${encodeURIComponent(task)}${rest}`;

/** The arrays of a version: a canonical safetensors file, read as far as float32 goes. */
export async function arrays(digest) {
  const answer = await fetch(`/v1/blobs/${digest}`, { signal: AbortSignal.timeout(PATIENCE) });
  if (!answer.ok) throw new Refused(answer.status, await answer.json().catch(() => ({})));
  const bytes = await answer.arrayBuffer();
  const length = Number(new DataView(bytes).getBigUint64(0, true));
  const heads = JSON.parse(new TextDecoder().decode(new Uint8Array(bytes, 8, length)));
  const found = new Map();
  for (const [name, { dtype, shape, data_offsets: [from, to] }] of Object.entries(heads)) {
    if (dtype === "F32") found.set(name, { shape, values: new Float32Array(bytes.slice(8 + length + from, 8 + length + to)) });
  }
  return found;
}

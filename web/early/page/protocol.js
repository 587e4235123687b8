// A device's calls to its coordinator.

import { base64, digest } from "./codec.js";

export const PROTOCOL = 1;
const ANSWER_SECONDS = 60;

/** An answer other than 2xx, with the coordinator's words. */
export class Refused extends Error {
  constructor(status, { code, problem, fix }) {
    super(`${problem}: ${fix}`);
    this.status = status;
    this.code = code;
  }

  /** Whether the same call may succeed later. */
  get transient() {
    return this.status >= 500 || this.status === 408;
  }
}

/** No answer: the coordinator is away, or the device has no network. */
export class Unreachable extends Error {
  transient = true;
}

/** Make a device's key, whose private half no script can read; signatures only need it to be used. */
export async function newKey() {
  const pair = await crypto.subtle.generateKey("Ed25519", false, ["sign", "verify"]);
  const raw = new Uint8Array(await crypto.subtle.exportKey("raw", pair.publicKey));
  return { pair, publicKey: base64(raw) };
}

/** A line to the coordinator at `url` with a bearer secret. */
export class Connection {
  #url;
  #secret;

  constructor(url, secret) {
    this.#url = url;
    this.#secret = secret;
  }

  enrol(name, publicKey) {
    return this.#call("POST", "/v1/devices", { name, public_key: publicKey, protocol: PROTOCOL });
  }

  checkIn(training, wait) {
    return this.#call("POST", "/v1/checkin", { training, statistics: false, wait, protocol: PROTOCOL }, wait);
  }

  task(id) {
    return this.#call("GET", `/v1/tasks/${encodeURIComponent(id)}`);
  }

  release(assignment, reason) {
    return this.#call("POST", `/v1/assignments/${encodeURIComponent(assignment)}/release`, { reason });
  }

  report(assignment, body) {
    const path = `/v1/assignments/${encodeURIComponent(assignment)}/report`;
    return this.#send("POST", path, { body, type: "application/octet-stream" });
  }

  /** Return a blob of at most `most` bytes that is what its digest says. */
  async blob(expected, most) {
    const data = await this.#send("GET", `/v1/blobs/${expected}`, { read: (response) => capped(response, most) });
    const found = await digest(data);
    if (found !== expected) throw new Error(`blob ${expected} arrived with SHA-256 ${found}`);
    return data;
  }

  #call(method, path, message, wait = 0) {
    const body = message === undefined ? undefined : JSON.stringify(message);
    return this.#send(method, path, { body, type: "application/json", wait });
  }

  async #send(method, path, { body, type, wait = 0, read = (response) => response.json() }) {
    const headers = { Authorization: `Bearer ${this.#secret}` };
    if (body !== undefined) headers["Content-Type"] = type;
    const signal = AbortSignal.timeout((ANSWER_SECONDS + wait) * 1000);
    try {
      const response = await fetch(this.#url + path, { method, headers, body, signal });
      if (response.ok) return await read(response);
      throw new Refused(response.status, await problem(response));
    } catch (error) {
      // fetch has no error of its own: TypeError stands for every way to get no answer
      if (!(error instanceof TypeError) && error.name !== "TimeoutError") throw error;
      throw new Unreachable(`${method} ${path} got no answer (${error.message})`);
    }
  }
}

async function problem(response) {
  const text = await response.text();
  try {
    return JSON.parse(text);
  } catch {
    return { code: "", problem: `${response.status} without an error message`, fix: "check the address" };
  }
}

async function capped(response, most) {
  const result = new Uint8Array(most);
  let size = 0;
  for await (const piece of response.body) {
    if (size + piece.length > most) throw new Error(`a blob is longer than ${most} bytes`);
    result.set(piece, size);
    size += piece.length;
  }
  return result.subarray(0, size);
}

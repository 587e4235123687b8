// A device's calls to its coordinator.

import { digest } from "./codec.js";
import { signed } from "./signing.js";

export const PROTOCOL = 1;
const ANSWER_SECONDS = 60;

/** An answer other than 2xx, with the coordinator's words. */
export class Refused extends Error {
  constructor(status, { code, problem, fix, server_time: serverTime }) {
    super(`${problem}: ${fix}`);
    this.status = status;
    this.code = code;
    this.serverTime = serverTime;
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

const NOTHING = new Uint8Array();

/** A line to the coordinator at `url`, on which every call is signed with a key. */
export class Connection {
  #url;
  #key;
  #behind = 0; // seconds by which this clock is behind the coordinator's

  constructor(url, key) {
    this.#url = url;
    this.#key = key;
  }

  /** Bind a name to the key; the enrolment token is shown in this call only. */
  enrol(name, token) {
    const message = { name, public_key: this.#key.publicKey, protocol: PROTOCOL };
    return this.#call("POST", "/v1/devices", message, 0, { Authorization: `Bearer ${token}` });
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

  #call(method, path, message, wait = 0, shown = {}) {
    const body = message === undefined ? NOTHING : new TextEncoder().encode(JSON.stringify(message));
    return this.#send(method, path, { body, type: "application/json", wait, shown });
  }

  async #send(method, path, sending) {
    try {
      return await this.#once(method, path, sending, Date.now() / 1000 + this.#behind);
    } catch (error) {
      if (error.code !== "bad_signature" || !error.serverTime) throw error;
      this.#behind = error.serverTime - Date.now() / 1000;
      return this.#once(method, path, sending, error.serverTime);
    }
  }

  async #once(method, path, { body = NOTHING, type, wait = 0, shown = {}, read = (response) => response.json() }, now) {
    const headers = { ...shown, ...(await signed(this.#key, method, path, body, now)) };
    if (body.length > 0) headers["Content-Type"] = type;
    const signal = AbortSignal.timeout((ANSWER_SECONDS + wait) * 1000);
    try {
      const response = await fetch(this.#url + path, { method, headers, signal, ...(body.length > 0 && { body }) });
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

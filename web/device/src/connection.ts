// A device's calls to its coordinator: signed, with a deadline, and with the coordinator's own words when it refuses.

import { digest } from "./digests.js";
import { Refused, Stopped, Tampered, Unreachable } from "./errors.js";
import type { DeviceKey } from "./keys.js";
import type { CheckInReply, CheckInRequest, EnrolReply, ErrorMessage, KeyReply, LatestReply, Receipt, RenewReply, TaskSpec } from "./messages.js";
import { signed } from "./signing.js";

export const PROTOCOL = 1;
const ANSWER_SECONDS = 60;
const JSON_TYPE = "application/json";
const BYTES_TYPE = "application/octet-stream";
const NOTHING = new Uint8Array();

type Bytes = Uint8Array<ArrayBuffer>;
type Read<T> = (response: Response) => Promise<T>;

interface Sending<T> {
  readonly body?: Bytes;
  readonly headers?: Readonly<Record<string, string>>;
  readonly wait?: number;
  readonly read: Read<T>;
  readonly signal?: AbortSignal | undefined;
}

/** Calls the coordinator at `url` in the name of a key. `sent` counts the bytes of bodies. */
export class Connection {
  readonly #url: string;
  readonly #key: DeviceKey;
  readonly #clock: () => number;
  #offset = 0;
  sent = 0;

  /** `clock` tells seconds since 1970. */
  constructor(url: string, key: DeviceKey, clock: () => number = () => Date.now() / 1000) {
    this.#url = url.replace(/\/+$/, "");
    this.#key = key;
    this.#clock = clock;
  }

  /** Bind a name to the key. An enrolment token is shown once, in a header, never in an address. */
  enrol(name: string, token: string | undefined): Promise<EnrolReply> {
    const message = { name, public_key: this.#key.publicKey, key_type: this.#key.kind, protocol: PROTOCOL };
    const authorization = token === undefined ? {} : { Authorization: `Bearer ${token}` };
    return this.#ask("POST", "/v1/devices", message, { headers: authorization });
  }

  checkIn(message: CheckInRequest, signal?: AbortSignal): Promise<CheckInReply> {
    return this.#ask("POST", "/v1/checkin", message, { wait: message.wait, signal });
  }

  task(id: string): Promise<TaskSpec> {
    return this.#ask("GET", `/v1/tasks/${encodeURIComponent(id)}`);
  }

  /** Give an assignment back; `again` if this device would take it once more in the same round. */
  release(assignment: string, reason: string, again = false): Promise<unknown> {
    return this.#ask("POST", `${assignmentPath(assignment)}/release`, { reason, again });
  }

  renew(assignment: string): Promise<RenewReply> {
    return this.#ask("POST", `${assignmentPath(assignment)}/renew`);
  }

  /** Send a report's bytes, and return the receipt: the same one however often it is sent. */
  report(assignment: string, body: Bytes, signal?: AbortSignal): Promise<Receipt> {
    const headers = { "Content-Type": BYTES_TYPE };
    return this.#send("POST", `${assignmentPath(assignment)}/report`, { body, headers, read: json<Receipt>, signal });
  }

  /** Begin an upload, or go on with the one that began; return how many bytes are there. */
  beginUpload(assignment: string, size: number, reprDigest: string, signal?: AbortSignal): Promise<number> {
    const headers = { "Upload-Length": String(size), "Repr-Digest": reprDigest, "Upload-Complete": "?0" };
    return this.#send("POST", `${assignmentPath(assignment)}/upload`, { headers, read: offset, signal });
  }

  /** Add a part to an upload; return how many bytes are there. */
  continueUpload(assignment: string, start: number, part: Bytes, size: number, signal?: AbortSignal): Promise<number> {
    const headers = {
      "Content-Type": "application/partial-upload",
      "Upload-Offset": String(start),
      "Upload-Complete": start + part.length === size ? "?1" : "?0",
    };
    return this.#send("PATCH", `${assignmentPath(assignment)}/upload`, { body: part, headers, read: offset, signal });
  }

  /** Return the coordinator's public key, which signs receipts. */
  async key(): Promise<string> {
    return (await this.#ask<KeyReply>("GET", "/v1/key")).public_key;
  }

  /** Return which version this device serves of a task, by the task's name or id. */
  latest(task: string): Promise<LatestReply> {
    return this.#ask("GET", `/v1/tasks/${encodeURIComponent(task)}/latest`);
  }

  /** Say that a version does not work on this device. */
  unfit(task: string, version: string, reason: string): Promise<unknown> {
    return this.#ask("POST", `/v1/tasks/${encodeURIComponent(task)}/unfit`, { version, reason: reason.slice(0, 300) });
  }

  /** Leave for good. */
  leave(): Promise<unknown> {
    return this.#ask("DELETE", "/v1/devices/me");
  }

  /** Return a blob of at most `most` bytes. Throws Tampered when its SHA-256 is another. */
  async blob(expected: string, most: number, signal?: AbortSignal): Promise<Bytes> {
    const read: Read<Bytes> = (response) => capped(response, most);
    const data = await this.#send("GET", `/v1/blobs/${expected}`, { read, signal });
    const found = await digest(data);
    if (found !== expected) throw new Tampered(`blob ${expected} arrived with SHA-256 ${found}`);
    return data;
  }

  #ask<T>(method: string, target: string, message?: object, more: Partial<Sending<T>> = {}): Promise<T> {
    const body = message === undefined ? NOTHING : new TextEncoder().encode(JSON.stringify(message));
    const type = message === undefined ? {} : { "Content-Type": JSON_TYPE };
    return this.#send(method, target, { read: json<T>, ...more, body, headers: { ...type, ...more.headers } });
  }

  async #send<T>(method: string, target: string, sending: Sending<T>): Promise<T> {
    try {
      return await this.#once(method, target, sending, this.#clock() + this.#offset);
    } catch (error) {
      const now = error instanceof WrongTime ? error.serverTime : undefined;
      if (now === undefined) throw error;
      this.#offset = now - this.#clock();
      return this.#once(method, target, sending, now);
    }
  }

  async #once<T>(method: string, target: string, sending: Sending<T>, now: number): Promise<T> {
    const { body = NOTHING, wait = 0, read } = sending;
    const headers = { ...sending.headers, ...(await signed(this.#key, { method, target, body }, now)) };
    const deadline = AbortSignal.timeout((ANSWER_SECONDS + wait) * 1000);
    const signal = sending.signal === undefined ? deadline : AbortSignal.any([deadline, sending.signal]);
    try {
      const given = body.length > 0 ? { body } : {};
      this.sent += body.length;
      const response = await fetch(this.#url + target, { method, headers, signal, ...given });
      if (!response.ok) throw await refusal(response);
      return await read(response);
    } catch (error) {
      if (sending.signal?.aborted) throw new Stopped(String(sending.signal.reason));
      if (!unanswered(error)) throw error;
      throw new Unreachable(`${method} ${target} got no answer (${(error as Error).message})`);
    }
  }
}

/** A refusal that signing anew with the coordinator's time may mend. */
class WrongTime extends Refused {
  readonly serverTime: number;

  constructor(status: number, said: ErrorMessage) {
    super(status, said);
    this.serverTime = said.server_time;
  }
}

function assignmentPath(assignment: string): string {
  return `/v1/assignments/${encodeURIComponent(assignment)}`;
}

// fetch has no error of its own: TypeError stands for every way to get no answer
function unanswered(error: unknown): boolean {
  return error instanceof TypeError || (error instanceof DOMException && error.name === "TimeoutError");
}

async function json<T>(response: Response): Promise<T> {
  return (await response.json()) as T;
}

async function offset(response: Response): Promise<number> {
  return Number(response.headers.get("Upload-Offset"));
}

async function refusal(response: Response): Promise<Refused> {
  const said = await problem(response);
  if (response.status === 401 && said.code === "bad_signature") return new WrongTime(response.status, said);
  const seconds = Number(response.headers.get("Retry-After") ?? Number.NaN);
  return new Refused(response.status, said, Number.isFinite(seconds) ? seconds : undefined);
}

async function problem(response: Response): Promise<ErrorMessage> {
  const text = await response.text();
  try {
    return JSON.parse(text) as ErrorMessage;
  } catch (error) {
    if (!(error instanceof SyntaxError)) throw error;
    const words = { code: "", problem: `${response.status} without an error message`, fix: "check the address" };
    return { ...words, server_time: 0, receipt: null };
  }
}

async function capped(response: Response, most: number): Promise<Bytes> {
  const pieces: Uint8Array[] = [];
  let size = 0;
  const reader = response.body!.getReader();
  for (;;) {
    const { done, value } = await reader.read();
    if (done) break;
    size += value.length;
    if (size > most) {
      await reader.cancel();
      throw new Tampered(`a blob is longer than ${most} bytes`);
    }
    pieces.push(value);
  }
  const result = new Uint8Array(size);
  let offset = 0;
  for (const piece of pieces) {
    result.set(piece, offset);
    offset += piece.length;
  }
  return result;
}

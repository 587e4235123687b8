// Sending a report: in one piece when it is small, else in parts of which none is sent twice.

import { joined, littleEndian } from "./arrays.js";
import { base64 } from "./digests.js";
import { Refused, Unreachable } from "./errors.js";
import type { Connection } from "./connection.js";
import type { Receipt, ReportHead } from "./messages.js";

const OVER = 1 << 20;
const PART = 1 << 20;
const TRIES = 3;

/** Send a report's head and arrays, and return its receipt. What arrived before a cut is not sent again. */
export async function sendReport(
  connection: Connection,
  assignment: string,
  head: ReportHead,
  arrays: Uint8Array<ArrayBuffer>,
  signal?: AbortSignal,
): Promise<Receipt> {
  if (arrays.length <= OVER) return connection.report(assignment, frame(head, arrays), signal);
  for (let tried = 1; ; tried += 1) {
    try {
      await sendParts(connection, assignment, head, arrays, signal);
      return await connection.report(assignment, frame({ ...head, uploaded: true }, new Uint8Array()), signal);
    } catch (error) {
      const again = error instanceof Refused && [400, 404, 409].includes(error.status) && error.code !== "conflict";
      if (!again || tried === TRIES) throw error;
    }
  }
}

async function sendParts(
  connection: Connection,
  assignment: string,
  { digest, size }: ReportHead,
  arrays: Uint8Array<ArrayBuffer>,
  signal?: AbortSignal,
): Promise<void> {
  const repr = `sha-256=:${base64(Uint8Array.from(digest.match(/../g)!, (pair) => Number.parseInt(pair, 16)))}:`;
  let offset = await connection.beginUpload(assignment, size, repr, signal);
  let stalled = false;
  while (offset < size) {
    let stands: number;
    try {
      stands = await connection.continueUpload(assignment, offset, arrays.slice(offset, offset + PART), size, signal);
    } catch (error) {
      const cut = error instanceof Unreachable || (error instanceof Refused && error.code === "wrong_offset");
      if (!cut) throw error;
      stands = await connection.beginUpload(assignment, size, repr, signal);
      if (stalled && stands === offset) throw error;
    }
    stalled = stands === offset;
    offset = stands;
  }
}

/** Return a report's body: the head's length, the head in JSON, the arrays. */
export function frame(head: ReportHead, arrays: Uint8Array): Uint8Array<ArrayBuffer> {
  const text = new TextEncoder().encode(JSON.stringify(head));
  return joined([littleEndian(text.length, 4), text, arrays]);
}

// What a device sends: durable before it leaves, sent until there is a receipt, and noted for the user to see.

import type { Connection } from "./connection.js";
import { Refused } from "./errors.js";
import type { Emitter, Release } from "./events.js";
import type { Change, Kept } from "./kept.js";
import type { ReportHead } from "./messages.js";
import { checkReceipt } from "./receipts.js";
import { sendReport } from "./upload.js";

interface Report {
  readonly assignment: string;
  readonly head: ReportHead;
  readonly arrays: Uint8Array<ArrayBuffer>;
}

/** Answers that a report will get every time: the round needs it no more, or does not take it. */
const FINAL = [400, 404, 409, 410, 413, 422];

export class Outbox {
  readonly #connection: Connection;
  readonly #kept: Kept;
  readonly #emitter: Emitter;
  readonly #coordinatorKey: string;

  constructor(connection: Connection, kept: Kept, emitter: Emitter, coordinatorKey: string) {
    this.#connection = connection;
    this.#kept = kept;
    this.#emitter = emitter;
    this.#coordinatorKey = coordinatorKey;
  }

  /** Return the changes that put a report here, and its release on the list. */
  changes(release: Release, head: ReportHead, arrays: Uint8Array<ArrayBuffer>): Change[] {
    const { assignment } = release;
    return [
      { store: "outbox", key: assignment, value: { assignment, head, arrays } satisfies Report },
      { store: "releases", key: assignment, value: release },
    ];
  }

  async pending(): Promise<number> {
    return (await this.#kept.all("outbox")).length;
  }

  /** Send what is here; return how many were accepted. Throws Unreachable while the coordinator is away. */
  async deliver(signal?: AbortSignal): Promise<number> {
    let accepted = 0;
    for (const report of await this.#kept.all<Report>("outbox")) {
      const release = await this.#sent(report, signal);
      await this.#kept.change([
        { store: "releases", key: report.assignment, value: release },
        { store: "outbox", key: report.assignment },
      ]);
      this.#emitter.emit(release.accepted === undefined ? "rejected" : "accepted", release);
      accepted += release.accepted === undefined ? 0 : 1;
    }
    return accepted;
  }

  async #sent({ assignment, head, arrays }: Report, signal?: AbortSignal): Promise<Release> {
    const release = (await this.#kept.get<Release>("releases", assignment))!;
    try {
      const receipt = await sendReport(this.#connection, assignment, head, arrays, signal);
      await checkReceipt(this.#coordinatorKey, receipt, head.digest);
      return { ...release, accepted: receipt.accepted_at };
    } catch (error) {
      if (!(error instanceof Refused) || !FINAL.includes(error.status)) throw error;
      return { ...release, refused: error.message };
    }
  }
}

// Which version a device serves: fetched, checked, proved on this runtime, kept with the one before it.

import { type Tree, type NdArray, decode, sizeOf } from "./arrays.js";
import type { Connection } from "./connection.js";
import { Refused, ShoalError, Unsupported } from "./errors.js";
import type { Change, Kept } from "./kept.js";
import type { LatestReply, ModelVersion, TaskSpec } from "./messages.js";
import { MOST_BYTES, type Plan, readPlan } from "./plan.js";
import type { RuntimeSettings } from "./runtime.js";
import type { Trainer } from "./trainer.js";

const RECORD = "held";
const HEADER_BYTES = 1 << 20;

/** A version with all that it takes to use it without a coordinator. */
export interface Held {
  readonly task: string;
  readonly spec: TaskSpec;
  readonly version: ModelVersion;
}

interface Record {
  readonly held: Held;
  readonly former?: Held | undefined;
}

type Bytes = Uint8Array<ArrayBuffer>;

/** The version here, its plan at work on a runtime, and its arrays. */
export class Adopting {
  readonly #connection: Connection;
  readonly #kept: Kept;
  readonly #trainer: Trainer;
  readonly #runtime: RuntimeSettings;
  #record: Record | undefined;
  #planned = "";
  plan: Plan | undefined;
  /** The version's arrays and the frozen ones: the global model but for what is local. */
  arrays: Tree = new Map();
  runtime = "";

  constructor(connection: Connection, kept: Kept, trainer: Trainer, runtime: RuntimeSettings) {
    this.#connection = connection;
    this.#kept = kept;
    this.#trainer = trainer;
    this.#runtime = runtime;
  }

  get held(): Held | undefined {
    return this.#record?.held;
  }

  /** Use what an earlier visit kept; the one before where the newer is damaged. Whether there was one. */
  async load(): Promise<boolean> {
    const record = await this.#kept.get<Record>("device", RECORD);
    for (const held of [record?.held, record?.former]) {
      if (held === undefined) continue;
      const blobs = await this.#here(held);
      if (blobs === undefined) continue;
      await this.#use(held, blobs);
      this.#record = { held, former: held === record!.held ? record!.former : undefined };
      return true;
    }
    return false;
  }

  /** Ask which version to serve, and serve it; whether it is another one. */
  async refresh(task: string, signal?: AbortSignal): Promise<boolean> {
    return this.serve(await this.#connection.latest(task), signal);
  }

  async serve({ task, version }: LatestReply, signal?: AbortSignal): Promise<boolean> {
    const before = this.#record?.held;
    if (before?.task === task && before.version.digest === version.digest) return false;
    const spec = before?.task === task ? before.spec : await this.#connection.task(task);
    const held = { task, spec, version };
    try {
      const blobs = await this.#fetched(held, signal);
      await this.#use(held, blobs);
      await this.#keep(held, blobs);
    } catch (error) {
      if (error instanceof ShoalError && !error.transient && !(error instanceof Refused)) {
        await this.#connection.unfit(task, version.digest, error.message);
      }
      throw error;
    }
    return true;
  }

  /** Return the travelling arrays of any version of the task. */
  async version(digest: string, signal?: AbortSignal): Promise<Tree> {
    const { held } = this;
    if (held === undefined) throw new ShoalError("no_version", "there is no model here yet", "sync() first");
    const here = await this.#kept.get<Bytes>("models", digest);
    return decode(here ?? (await this.#connection.blob(digest, size(held.spec), signal)));
  }

  async #fetched(held: Held, signal?: AbortSignal): Promise<Map<string, Bytes>> {
    const most = size(held.spec);
    const blobs = new Map<string, Bytes>();
    for (const digest of digestsOf(held)) {
      const cap = digest === planDigest(held.spec) ? MOST_BYTES : most;
      const here = await this.#kept.get<Bytes>("models", digest);
      blobs.set(digest, here ?? (await this.#connection.blob(digest, cap, signal)));
    }
    return blobs;
  }

  async #here(held: Held): Promise<Map<string, Bytes> | undefined> {
    const found = await Promise.all(digestsOf(held).map(async (digest) => [digest, await this.#kept.get<Bytes>("models", digest)] as const));
    return found.every(([, bytes]) => bytes !== undefined) ? new Map(found as [string, Bytes][]) : undefined;
  }

  async #use(held: Held, blobs: ReadonlyMap<string, Bytes>): Promise<void> {
    const digest = planDigest(held.spec);
    if (digest !== this.#planned) {
      const bytes = blobs.get(digest)!;
      const plan = readPlan(bytes);
      this.runtime = await this.#trainer.adopt(bytes, this.#runtime);
      this.plan = plan;
      this.#planned = digest;
    }
    this.arrays = new Map<string, NdArray>([
      ...decode(blobs.get(held.spec.frozen)!),
      ...decode(blobs.get(held.version.digest)!),
    ]);
  }

  async #keep(held: Held, blobs: ReadonlyMap<string, Bytes>): Promise<void> {
    const former = this.#record?.held;
    const gone = digestsOf(this.#record?.former).filter((digest) => ![...digestsOf(held), ...digestsOf(former)].includes(digest));
    const record = { held, former };
    const changes: Change[] = [
      ...[...blobs].map(([key, value]) => ({ store: "models", key, value }) as const),
      ...gone.map((key) => ({ store: "models", key }) as const),
      { store: "device", key: RECORD, value: record },
    ];
    await this.#kept.change(changes);
    this.#record = record;
  }
}

/** Return the digest of a task's plan. Throws for a task that was published without one. */
export function planDigest(spec: TaskSpec): string {
  const digest = spec.exported;
  if (!digest) throw new Unsupported(`task ${spec.name} has no plan`, "publish it with one, or train it where its code is");
  return digest;
}

function digestsOf(held: Held | undefined): string[] {
  return held === undefined ? [] : [held.version.digest, held.spec.frozen, planDigest(held.spec)];
}

function size(spec: TaskSpec): number {
  const bytes = Object.values(spec.arrays).map((array) => 8 * sizeOf(array.shape));
  return bytes.reduce((sum, each) => sum + each, HEADER_BYTES);
}

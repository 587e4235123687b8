// Which version a device serves: fetched, checked, proved on this runtime, kept with the one before it.

import { type Tree, type NdArray, decode, dtypeOf, sizeOf } from "./arrays.js";
import type { Connection } from "./connection.js";
import { digest as digestOf } from "./digests.js";
import { ShoalError, Tampered, Unsupported } from "./errors.js";
import type { Emitter } from "./events.js";
import type { Change, Kept } from "./kept.js";
import type { ArraySpec, HeadsHere, LatestReply, ModelVersion, TaskSpec } from "./messages.js";
import { MOST_BYTES, type Plan, readPlan, section } from "./plan.js";
import type { RuntimeSettings } from "./runtime.js";
import type { Stamp } from "./stamp.js";
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
  readonly held?: Held | undefined;
  readonly former?: Held | undefined;
  /** Why a version is not served here, by its digest. */
  readonly refused: Readonly<{ [digest: string]: string }>;
}

type Bytes = Uint8Array<ArrayBuffer>;

/** What adopting takes. `wrong` judges a model by this device's examples, in words; "" where nothing is wrong. */
export interface AdoptingParts {
  readonly connection: Connection;
  readonly kept: Kept;
  readonly stamp: Stamp;
  readonly trainer: Trainer;
  readonly runtime: RuntimeSettings;
  readonly emitter: Emitter;
  readonly wrong: (arrays: Tree) => Promise<string>;
}

/** The version here, its plan at work on a runtime, and its arrays. */
export class Adopting {
  readonly #parts: AdoptingParts;
  #record: Record = { refused: {} };
  #planned = "";
  plan: Plan | undefined;
  /** The version's arrays, the frozen ones, and the local ones as they begin: the global model of a new device. */
  arrays: Tree = new Map();
  runtime = "";
  /** Why the version that the coordinator names is not served here. */
  problem = "";

  constructor(parts: AdoptingParts) {
    this.#parts = parts;
  }

  get held(): Held | undefined {
    return this.#record.held;
  }

  /** The names of all arrays of the model. */
  get names(): string[] {
    return this.plan?.manifest.arrays.map(({ name }) => name) ?? [];
  }

  /** Use what an earlier visit or another tab kept; the one before where the newer is damaged. Whether there is one. */
  async load(): Promise<boolean> {
    const record = (await this.#parts.kept.get<Record>("device", RECORD)) ?? this.#record;
    for (const held of [record.held, record.former]) {
      const blobs = held && (await this.#here(held));
      if (held === undefined || blobs === undefined) continue;
      try {
        this.arrays = await this.#proved(held, blobs);
      } catch (error) {
        // a browser that was updated may compute something else
        if (error instanceof ShoalError) await this.#report(held, `${error.code}: ${error.problem}`);
        throw error;
      }
      this.#record = { ...record, held, former: held === record.held ? record.former : undefined };
      return true;
    }
    return false;
  }

  /** Take note of the answer to a check-in; whether this device serves what it says, and need not ask for more. */
  stays(told: readonly HeadsHere[]): boolean {
    const { held } = this;
    const serves = told.some(({ task, serves_digest }) => task === held?.task && serves_digest === held.version.digest);
    if (serves) this.problem = "";
    return serves;
  }

  /** Ask which version to serve, and serve it; whether it is another one. */
  async refresh(task: string, signal?: AbortSignal): Promise<boolean> {
    return this.serve(await this.#parts.connection.latest(task), signal);
  }

  /** Serve a version; whether it is another one. What does not work here is reported to the coordinator, and thrown. */
  async serve(told: LatestReply, signal?: AbortSignal): Promise<boolean> {
    const { task, version } = told;
    const before = this.held;
    if (before?.task === task && before.version.digest === version.digest) {
      this.problem = "";
      return false;
    }
    const known = this.#record.refused[version.digest];
    if (known !== undefined) {
      await this.#report(told, known);
      return false;
    }
    const spec = before?.task === task ? before.spec : await this.#parts.connection.task(task);
    return this.#adopt(told, { task, spec, version }, signal);
  }

  async #adopt(told: LatestReply, held: Held, signal?: AbortSignal): Promise<boolean> {
    const before = { plan: this.plan, planned: this.#planned, runtime: this.runtime };
    try {
      const blobs = await this.#fetched(held, signal);
      const arrays = await this.#proved(held, blobs);
      const wrong = await this.#parts.wrong(arrays);
      if (wrong !== "") {
        await this.#goBack(before);
        await this.#refuse(told, wrong);
        return false;
      }
      await this.#keep(held, blobs);
      this.arrays = arrays;
      this.problem = "";
      return true;
    } catch (error) {
      await this.#goBack(before);
      const ours = error instanceof ShoalError && ["tampered", "unsupported", "runtime_mismatch"].includes(error.code);
      if (ours) await this.#report(told, `${error.code}: ${error.problem}`);
      throw error;
    }
  }

  /** Let the plan that worked before work again. */
  async #goBack({ plan, planned, runtime }: { plan: Plan | undefined; planned: string; runtime: string }): Promise<void> {
    if (this.#planned === planned) return;
    const bytes = plan && (await this.#parts.kept.get<Bytes>("models", planned));
    if (bytes !== undefined) await this.#parts.trainer.adopt(bytes, this.#parts.runtime);
    this.plan = plan;
    this.#planned = planned;
    this.runtime = runtime;
  }

  async #refuse(told: LatestReply, reason: string): Promise<void> {
    const record = { ...this.#record, refused: { ...this.#record.refused, [told.version.digest]: reason } };
    await this.#parts.stamp.change([{ store: "device", key: RECORD, value: record }]);
    this.#record = record;
    await this.#report(told, reason);
  }

  async #report({ task, version }: Pick<LatestReply, "task" | "version">, reason: string): Promise<void> {
    this.problem = `version ${version.number} of ${task} is not served here: ${reason}`;
    this.#parts.emitter.emit("state", this.problem);
    try {
      await this.#parts.connection.unfit(task, version.digest, reason);
    } catch (failed) {
      if (!(failed instanceof ShoalError)) throw failed;
      this.#parts.emitter.emit("error", failed); // the next sync tells it again
    }
  }

  /** Return the travelling arrays of any version of the task. */
  async version(digest: string, signal?: AbortSignal): Promise<Tree> {
    const { held } = this;
    if (held === undefined) throw new ShoalError("no_version", "there is no model here yet", "sync() first");
    const here = await this.#parts.kept.get<Bytes>("models", digest);
    const bytes = here ?? (await this.#downloaded(digest, size(held.spec), signal));
    return checked(decode(bytes), held.spec, (role) => role !== "frozen" && role !== "local");
  }

  async #fetched(held: Held, signal?: AbortSignal): Promise<Map<string, Bytes>> {
    const blobs = new Map<string, Bytes>();
    for (const digest of digestsOf(held)) {
      const most = digest === planDigest(held.spec) ? MOST_BYTES : 2 * size(held.spec);
      const here = await this.#parts.kept.get<Bytes>("models", digest);
      blobs.set(digest, here ?? (await this.#downloaded(digest, most, signal)));
    }
    return blobs;
  }

  async #downloaded(digest: string, most: number, signal?: AbortSignal): Promise<Bytes> {
    try {
      return await this.#parts.connection.blob(digest, most, signal);
    } catch (error) {
      if (!(error instanceof Tampered)) throw error;
      return this.#parts.connection.blob(digest, most, signal); // a line may have damaged it once
    }
  }

  async #here(held: Held): Promise<Map<string, Bytes> | undefined> {
    const blobs = new Map<string, Bytes>();
    for (const digest of digestsOf(held)) {
      const bytes = await this.#parts.kept.get<Bytes>("models", digest);
      if (bytes === undefined || (await digestOf(bytes)) !== digest) return undefined;
      blobs.set(digest, bytes);
    }
    return blobs;
  }

  /** Return the arrays of a version whose plan proved itself here. */
  async #proved({ spec, version }: Held, blobs: ReadonlyMap<string, Bytes>): Promise<Tree> {
    const digest = planDigest(spec);
    if (digest !== this.#planned) {
      const bytes = blobs.get(digest)!;
      const plan = readPlan(bytes);
      checkPlan(plan, spec);
      const runtime = await this.#parts.trainer.adopt(bytes, this.#parts.runtime);
      this.plan = plan;
      this.#planned = digest;
      this.runtime = runtime;
    }
    const golden = hasLocal(spec) ? section(decode(blobs.get(spec.golden)!), "local/") : new Map<string, NdArray>();
    return new Map<string, NdArray>([
      ...checked(golden, spec, (role) => role === "local"),
      ...checked(decode(blobs.get(spec.frozen)!), spec, (role) => role === "frozen"),
      ...checked(decode(blobs.get(version.digest)!), spec, (role) => role !== "frozen" && role !== "local"),
    ]);
  }

  async #keep(held: Held, blobs: ReadonlyMap<string, Bytes>): Promise<void> {
    const former = this.#record.held;
    const needed = [...digestsOf(held), ...digestsOf(former)];
    const gone = digestsOf(this.#record.former).filter((digest) => !needed.includes(digest));
    const record = { ...this.#record, held, former };
    const changes: Change[] = [
      ...[...blobs].map(([key, value]) => ({ store: "models", key, value }) as const),
      ...gone.map((key) => ({ store: "models", key }) as const),
      { store: "device", key: RECORD, value: record },
    ];
    await this.#parts.stamp.change(changes);
    this.#record = record;
  }
}

/** Return the digest of a task's plan. Throws for a task that was published without one. */
export function planDigest(spec: TaskSpec): string {
  const digest = spec.exported;
  if (!digest) throw new Unsupported(`task ${spec.name} has no plan`, "publish it with one, or train it where its code is");
  return digest;
}

function hasLocal(spec: TaskSpec): boolean {
  return Object.values(spec.arrays).some(({ role }) => role === "local");
}

function digestsOf(held: Held | undefined): string[] {
  if (held === undefined) return [];
  const { version, spec } = held;
  return [version.digest, spec.frozen, planDigest(spec), ...(hasLocal(spec) ? [spec.golden] : [])];
}

function size(spec: TaskSpec): number {
  const bytes = Object.values(spec.arrays).map((array) => 8 * sizeOf(array.shape));
  return bytes.reduce((sum, each) => sum + each, HEADER_BYTES);
}

/** Return a tree that holds just the task's arrays of some roles. Throws Tampered for another one. */
function checked(tree: Tree, spec: TaskSpec, wanted: (role: ArraySpec["role"]) => boolean): Tree {
  const told = Object.entries(spec.arrays).filter(([, { role }]) => wanted(role));
  const described = (dtype: string, shape: readonly number[]): string => `${dtype} [${shape}]`;
  for (const [name, { dtype, shape }] of told) {
    const found = tree.get(name);
    const here = found && described(found.dtype, found.shape);
    const asked = described(dtypeOf(dtype), shape);
    if (here !== asked) throw new Tampered(`array ${name} of task ${spec.name} is ${here ?? "not there"} and not ${asked}`);
  }
  if (tree.size !== told.length) throw new Tampered(`${tree.size} arrays for the ${told.length} of task ${spec.name}`);
  return tree;
}

function checkPlan(plan: Plan, spec: TaskSpec): void {
  const line = (name: string, dtype: string, shape: readonly number[], role = ""): string => `${name} ${dtype} [${shape}] ${role}`;
  const planned = plan.manifest.arrays.map(({ name, dtype, shape, role }) => line(name, dtype, shape, role)).sort();
  const told = Object.entries(spec.arrays).map(([name, { dtype, shape, role }]) => line(name, dtype, shape, role)).sort();
  if (planned.join() !== told.join()) throw new Tampered(`a plan of another model than that of task ${spec.name}`);
}

// What a device does for the coordinator: it checks in, trains or measures as assigned, and sends what was made durable.

import { type NdArray, encode, make } from "./arrays.js";
import type { Adopting } from "./adopting.js";
import { type Connection, PROTOCOL } from "./connection.js";
import { digest } from "./digests.js";
import { DataError, NotPermitted, Refused, RuntimeMismatch, ShoalError, StorageFull, Stopped } from "./errors.js";
import type { Emitter, Release } from "./events.js";
import type { Examples } from "./examples.js";
import type { Assignment, HeadsHere, ReportHead, Subject, TaskSpec } from "./messages.js";
import type { Outbox } from "./outbox.js";
import { type Personal, type PersonalStore, whole } from "./personal.js";
import { trained, travelling } from "./plan.js";
import type { Joined } from "./standing.js";
import type { Trainer } from "./trainer.js";
import { changeOf, clipped, courseOf, lengthOf } from "./training.js";

const WEIGHT_UNIT = 2 ** 16;
const MINIMUM_ROWS = 10;
const AGAINST = "against_";

/** What one check-in came to. */
export interface Turn {
  readonly accepted: number;
  /** Seconds until the next one. */
  readonly pause: number;
  /** What kept an assignment from being carried out. */
  readonly problem?: ShoalError;
  /** The versions that the coordinator named. */
  readonly told: readonly HeadsHere[];
}

interface Result {
  readonly arrays: ReadonlyMap<string, NdArray>;
  readonly rows: number;
  readonly metrics: Record<string, number>;
  readonly what: string;
  readonly norm: number;
  /** What stays here of it. */
  readonly personal?: Personal;
}

/** What taking part takes. */
export interface Parts {
  readonly connection: Connection;
  readonly adopting: Adopting;
  readonly outbox: Outbox;
  readonly personal: PersonalStore;
  readonly trainer: Trainer;
  readonly emitter: Emitter;
}

export class TakingPart {
  readonly #settings: Joined;
  readonly #connection: Connection;
  readonly #adopting: Adopting;
  readonly #outbox: Outbox;
  readonly #personal: PersonalStore;
  readonly #trainer: Trainer;
  readonly #emitter: Emitter;

  constructor(settings: Joined, parts: Parts) {
    this.#settings = settings;
    this.#connection = parts.connection;
    this.#adopting = parts.adopting;
    this.#outbox = parts.outbox;
    this.#personal = parts.personal;
    this.#trainer = parts.trainer;
    this.#emitter = parts.emitter;
  }

  /** Send what waits, check in where there is enough to learn from, and carry out what is assigned. */
  async turn(examples: Examples | undefined, signal?: AbortSignal): Promise<Turn> {
    const accepted = await this.#outbox.deliver(signal);
    const least = Math.max(1, this.#settings.minimumRows ?? MINIMUM_ROWS);
    if (examples === undefined || examples.count(false) < least) return { accepted, pause: 1, told: [] };
    const message = {
      training: [this.#settings.task],
      statistics: false,
      evaluation: this.#settings.evaluation ?? true,
      wait: 0,
      utc_offset: -60 * new Date().getTimezoneOffset(),
      protocol: PROTOCOL,
    };
    const { assignment, lease, reason, retry_after: pause, versions: told } = await this.#connection.checkIn(message, signal);
    if (assignment === null) {
      this.#emitter.emit("state", reason);
      return { accepted, pause, told };
    }
    const problem = await this.#carriedOut(assignment, lease, examples, signal);
    if (problem !== undefined) return { accepted, pause: 0, told, problem };
    return { accepted: accepted + (await this.#outbox.deliver(signal)), pause: 0, told };
  }

  /** Work, and make the result durable; or return why not, once the place was given back. */
  async #carriedOut(assignment: Assignment, lease: number, examples: Examples, signal?: AbortSignal): Promise<ShoalError | undefined> {
    this.#emitter.emit("state", `round ${assignment.round} of ${assignment.task}`);
    const started = performance.now();
    try {
      const result = await this.#worked(assignment, lease, examples, signal);
      await this.#released(assignment, result, (performance.now() - started) / 1000);
      return undefined;
    } catch (error) {
      // a lease that goes on gives the same assignment at the next check-in
      if (!(error instanceof ShoalError) || error.transient) throw error;
      if (error instanceof Refused && [404, 410].includes(error.status)) return error;
      await this.#givenBack(assignment, error);
      if (error instanceof Stopped || error instanceof StorageFull) throw error;
      return error;
    }
  }

  async #givenBack({ id }: Assignment, error: ShoalError): Promise<void> {
    const why = error instanceof Stopped ? `stopped: ${error.problem}` : `${error.code}: ${error.message}`;
    const again = error instanceof Stopped || error instanceof StorageFull; // another time it may go well
    try {
      await this.#connection.release(id, why, again);
    } catch (failed) {
      if (!(failed instanceof ShoalError)) throw failed;
      this.#emitter.emit("error", failed); // the coordinator takes the place back when its lease is over
    }
  }

  async #worked(assignment: Assignment, lease: number, examples: Examples, signal?: AbortSignal): Promise<Result> {
    const { held } = this.#adopting;
    if (held?.task === assignment.task) return this.#trained(assignment, lease, examples, signal);
    const spec = await this.#connection.task(assignment.task);
    if (spec.kind === "evaluation") return this.#evaluated(spec, examples, signal);
    if (spec.kind !== "training") throw new NotPermitted(`${spec.kind} for task ${spec.name}`, "this device allows updates and metrics");
    await this.#specOf(assignment.task, signal);
    return this.#trained(assignment, lease, examples, signal);
  }

  /** Return the spec of a training task whose plan proved itself here. Throws for one that is not the newest. */
  async #specOf(task: string, signal?: AbortSignal): Promise<TaskSpec> {
    if (this.#adopting.held?.task !== task) await this.#adopting.refresh(this.#settings.task, signal);
    const { held } = this.#adopting;
    if (held?.task !== task) {
      throw new RuntimeMismatch(`task ${task} is not the newest ${this.#settings.task} that works here`);
    }
    return held.spec;
  }

  async #trained(assignment: Assignment, lease: number, examples: Examples, signal?: AbortSignal): Promise<Result> {
    const { held, plan, names } = this.#adopting;
    const version = await this.#adopting.version(assignment.version, signal);
    const now = this.#personal.now;
    const fromPersonal = held!.spec.local.start === "personal";
    const own = fromPersonal && now.arrays.size > 0 ? now.arrays : now.local;
    const global = whole(new Map([...this.#adopting.arrays, ...version]), now.local, names);
    const order = {
      course: courseOf(held!.spec, assignment.round),
      arrays: whole(global, own, names),
      start: global,
      rows: examples.rows(false),
      seed: assignment.seed,
    };
    const done = await this.#trainer.train(order, this.#renewing(assignment.id, lease), signal);
    const change = clipped(plan!, changeOf(plan!, global, done.arrays), held!.spec.local.clip_update);
    const norm = lengthOf(change);
    return {
      arrays: new Map([...change].map(([name, array]) => [`delta/${name}`, array])),
      rows: done.rows,
      metrics: { loss: done.loss },
      what: `change of ${change.size} arrays, length ${norm.toPrecision(4)}, learnt from ${done.rows} rows`,
      norm,
      personal: this.#learnt(done.arrays, fromPersonal, assignment.version),
    };
  }

  #learnt(arrays: ReadonlyMap<string, NdArray>, fromPersonal: boolean, base: string): Personal {
    const { manifest } = this.#adopting.plan!;
    const now = this.#personal.now;
    const moving = trained(manifest);
    const leaving = new Set(travelling(manifest));
    const local = new Map(moving.filter((name) => !leaving.has(name)).map((name) => [name, arrays.get(name)!]));
    if (!fromPersonal) return { ...now, local };
    return { arrays: new Map(moving.map((name) => [name, arrays.get(name)!])), local, base, trainings: now.trainings + 1 };
  }

  async #evaluated(spec: TaskSpec, examples: Examples, signal?: AbortSignal): Promise<Result> {
    const rows = examples.count(true);
    const { subject } = spec;
    if (subject === null) throw new DataError(`task ${spec.name} names no version`, "publish it again");
    this.#permitted(spec, rows);
    await this.#specOf(subject.task, signal);
    const values = await this.#measured(subject, examples, signal);
    const columns = spec.columns as readonly string[];
    const absent = columns.find((name) => !(name in values));
    if (absent !== undefined) throw new DataError(`no metric ${absent}`, `the plan measures ${Object.keys(values)}`);
    return {
      arrays: new Map([
        ["delta/rows", make("F64", [columns.length], columns.map(() => rows))],
        ["delta/total", make("F64", [columns.length], columns.map((name) => values[name]! * rows))],
      ]),
      rows,
      metrics: {},
      what: `metrics ${columns.join(", ")} over ${rows} rows held out`,
      norm: 0,
    };
  }

  #permitted(spec: TaskSpec, rows: number): void {
    const { evaluation = true, ownMetrics = false, minimumRows = MINIMUM_ROWS } = this.#settings;
    const asked = `metrics for task ${spec.name}`;
    if (!evaluation) throw new NotPermitted(asked, "this device allows updates");
    if (rows === 0) throw new NotPermitted(asked, "no examples are held out here");
    if (spec.plan.minimum < 2 && !ownMetrics) throw new NotPermitted(`${asked} of one device alone`, "it asks for a mean over at least 2");
    if (rows < minimumRows) throw new NotPermitted(`${asked} about ${rows} rows`, `this device asks for at least ${minimumRows}`);
  }

  async #measured({ version, against }: Subject, examples: Examples, signal?: AbortSignal): Promise<Record<string, number>> {
    const rows = examples.rows(true);
    const measured = async (digest: string): Promise<Record<string, number>> => {
      const arrays = new Map([...this.#adopting.arrays, ...(await this.#adopting.version(digest, signal))]);
      return this.#trainer.evaluate(whole(arrays, this.#personal.now.local, this.#adopting.names), rows);
    };
    const values = await measured(version);
    if (!against) return values;
    const other = Object.entries(await measured(against));
    return { ...values, ...Object.fromEntries(other.map(([name, value]) => [AGAINST + name, value])) };
  }

  /** Make what leaves, its entry in the list of releases, and what stays here durable: all of them or none. */
  async #released({ id, task, round }: Assignment, result: Result, seconds: number): Promise<void> {
    const { rows, metrics, what, norm, personal } = result;
    const arrays = encode(result.arrays);
    const head: ReportHead = {
      digest: await digest(arrays),
      size: arrays.length,
      weight: rows * WEIGHT_UNIT,
      metrics,
      costs: { train_seconds: seconds, network_seconds: 0, cpu_seconds: 0, bytes_up: 0, bytes_down: 0 },
      origin: null,
      uploaded: false,
    };
    const release: Release = { time: Date.now() / 1000, task, round, assignment: id, what, bytes: arrays.length, digest: head.digest, norm, rows };
    await this.#personal.keep(personal ?? this.#personal.now, this.#outbox.changes(release, head, arrays));
  }

  /** Return what a step does for the lease: extend it as the work progresses, once half of it is over. */
  #renewing(assignment: string, lease: number): (step: number, loss: number) => Promise<void> {
    let renewed = performance.now();
    return async (step, loss) => {
      this.#emitter.emit("progress", { step, loss, kind: "round" });
      if (performance.now() - renewed < (1000 * lease) / 2) return;
      renewed = performance.now();
      await this.#connection.renew(assignment).catch((error: unknown) => {
        if (!(error instanceof ShoalError && error.transient)) throw error;
      });
    };
  }
}

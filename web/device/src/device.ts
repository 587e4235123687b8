// A device whose predictions get better with use, and which sends nothing but updates.

import { type NdArray, encode } from "./arrays.js";
import { Adopting } from "./adopting.js";
import { type Conditions, type Probe, browserProbe, unmet } from "./conditions.js";
import { Connection, PROTOCOL } from "./connection.js";
import { digest } from "./digests.js";
import { DataError, Refused, RuntimeMismatch, ShoalError, Stopped, Unreachable, Unsupported } from "./errors.js";
import { type DeviceEvents, Emitter, type Release } from "./events.js";
import { type ExampleSettings, Examples, type Given, cast, stack } from "./examples.js";
import { type Identity, identified } from "./identity.js";
import { type Kept, openIndexedDb } from "./kept.js";
import type { Assignment, LocalPlan, TaskSpec } from "./messages.js";
import { Outbox } from "./outbox.js";
import { type Personal, PersonalStore, whole } from "./personal.js";
import { layoutOf, trained, travelling } from "./plan.js";
import { type Rate, factor } from "./rates.js";
import { type RuntimeSettings, located } from "./runtime.js";
import { Schedule } from "./schedule.js";
import { derive } from "./seeds.js";
import { installed, sendLater } from "./offline.js";
import { LocalTrainer, type Trainer, WorkerTrainer } from "./trainer.js";
import { type Course, changeOf, countOf, lengthOf } from "./training.js";

const WEIGHT_UNIT = 2 ** 16;

export type Which = "global" | "personal";

/** How a device is set up. */
export interface Joined extends ExampleSettings {
  /** The name of the task that the app's examples are for. */
  readonly task: string;
  /** An enrolment token; a device that joined before needs none. */
  readonly token?: string;
  readonly name?: string;
  readonly runtime: RuntimeSettings;
  /** The address of worker.js; without one the numbers are worked out in this thread. */
  readonly worker?: string | URL;
  /**
   * The address of service.js, so that the app opens without a network. It lies in the page's folder, or is served with
   * a Service-Worker-Allowed header that names that folder, as a coordinator does for its pages.
   */
  readonly service?: string | URL;
  readonly kept?: Kept;
  readonly probe?: Probe;
  /** Nothing is released about fewer examples than this. */
  readonly minimumRows?: number;
}

export interface PersonaliseOptions {
  readonly signal?: AbortSignal;
  readonly onStep?: (step: number, loss: number) => void;
  readonly start?: Which;
}

/** What a call of `personalise` did; losses are those on held-out examples, undefined without any. */
export interface Personalised {
  readonly before: number | undefined;
  readonly after: number | undefined;
  readonly kept: boolean;
}

/** Where a device stands. */
export interface Status {
  readonly name: string;
  readonly url: string;
  readonly task: string;
  readonly examples: number;
  readonly heldOut: number;
  readonly version: number | undefined;
  readonly runtime: string;
  readonly serving: Which;
  readonly globalLoss: number | undefined;
  readonly personalLoss: number | undefined;
  readonly pending: number;
  readonly running: boolean;
  readonly waitingFor: readonly string[];
}

interface Turn {
  readonly accepted: number;
  /** Seconds until the next one. */
  readonly pause: number;
}

type Losses = Partial<Record<Which, number>>;

/** One user's device. Make it with `join`; two tabs of one origin are one device, which one of them works at a time. */
export class Device {
  readonly #url: string;
  readonly #settings: Joined;
  readonly #kept: Kept;
  readonly #identity: Identity;
  readonly #connection: Connection;
  readonly #trainer: Trainer;
  readonly #adopting: Adopting;
  readonly #outbox: Outbox;
  readonly #personal: PersonalStore;
  readonly #emitter: Emitter;
  #examples: Examples | undefined;
  #schedule: Schedule | undefined;
  #judged: { state: string; losses: Losses } = { state: "", losses: {} };
  #busy: Promise<unknown> = Promise.resolve();

  private constructor(url: string, settings: Joined, kept: Kept, identity: Identity) {
    this.#url = url;
    this.#settings = settings;
    this.#kept = kept;
    this.#identity = identity;
    this.#emitter = new Emitter();
    this.#connection = new Connection(url, identity.key, settings.clock);
    this.#trainer = settings.worker === undefined ? new LocalTrainer() : new WorkerTrainer(settings.worker);
    this.#adopting = new Adopting(this.#connection, kept, this.#trainer, located(settings.runtime));
    this.#outbox = new Outbox(this.#connection, kept, this.#emitter, identity.coordinatorKey);
    this.#personal = new PersonalStore(kept);
  }

  /** Join a coordinator, or open a device that joined before, which needs neither token nor network. */
  static async join(url: string, settings: Joined): Promise<Device> {
    if (globalThis.isSecureContext === false || crypto.subtle === undefined) {
      throw new Unsupported("this page is not in a secure context", "serve it by https, or by http on this machine itself");
    }
    const kept = settings.kept ?? (await openIndexedDb(settings.task));
    const clock = settings.clock ?? (() => Date.now() / 1000);
    const identity = await identified(kept, { url, token: settings.token, name: settings.name, clock });
    const device = new Device(url, settings, kept, identity);
    await device.#open();
    if (settings.service !== undefined) await installed(settings.service, await device.#trainer.files());
    return device;
  }

  async #open(): Promise<void> {
    await this.#personal.load();
    if (await this.#adopting.load()) await this.#openExamples();
    await this.#refresh();
  }

  /** Take the version that the coordinator tells; without a network what is here goes on serving. */
  async #refresh(signal?: AbortSignal): Promise<void> {
    try {
      const another = await this.#adopting.refresh(this.#settings.task, signal);
      if (this.#examples === undefined) await this.#openExamples();
      if (another) this.#emitter.emit("version", this.#adopting.held!.version);
    } catch (error) {
      const later = error instanceof ShoalError && (error.transient || (error instanceof Refused && error.status === 404));
      if (!later) throw error;
      this.#emitter.emit("error", error);
    }
  }

  async #openExamples(): Promise<void> {
    const layout = layoutOf(this.#adopting.plan!.manifest);
    this.#examples = await Examples.open(this.#kept, this.name, layout, this.#settings);
  }

  get name(): string {
    return this.#identity.name;
  }

  /** Listen; call what is returned to stop. */
  on<K extends keyof DeviceEvents>(kind: K, hear: (event: DeviceEvents[K]) => void): () => void {
    return this.#emitter.on(kind, hear);
  }

  /** Keep one example; it is durable when the promise is fulfilled, and stays on this device. */
  async observe(x: Given | Readonly<Record<string, Given>>, y?: Given): Promise<void> {
    const named = y === undefined ? (x as Readonly<Record<string, Given>>) : { x: x as Given, y };
    await this.#ready.add(named);
  }

  get #ready(): Examples {
    if (this.#examples === undefined) {
      throw new ShoalError("no_version", `task ${this.#settings.task} was not published yet`, "sync() later");
    }
    return this.#examples;
  }

  /** Return the output for one example, of the model that is better here. */
  async predict(x: Given | Readonly<Record<string, Given>>): Promise<NdArray> {
    const named = typeof x === "object" && !("values" in x) && !ArrayBuffer.isView(x) && !Array.isArray(x) ? x : { x: x as Given };
    const layout = this.#ready.layout;
    const given = Object.entries(named as Record<string, Given>);
    const unknown = given.find(([name]) => !layout.has(name));
    if (unknown !== undefined) throw new DataError(`a prediction from ${unknown[0]}`, `an example has ${[...layout.keys()]}`);
    const batch = new Map(given.map(([name, value]) => [name, stack([cast(name, value, layout)])]));
    return this.#trainer.predict(this.#model(await this.serving()), batch);
  }

  #model(which: Which): Map<string, NdArray> {
    const { arrays, local } = this.#personal.now;
    const names = this.#adopting.plan!.manifest.arrays.map(({ name }) => name);
    return whole(this.#adopting.arrays, which === "personal" ? arrays : local, names);
  }

  /** Which model predicts: the one with the lower loss on held-out examples, else the global. */
  async serving(): Promise<Which> {
    const { personal = Infinity, global = Infinity } = await this.#losses();
    return personal < global ? "personal" : "global";
  }

  async #losses(): Promise<Losses> {
    const now = this.#personal.now;
    const state = [this.#ready.mark(true), this.#adopting.held?.version.digest, now.trainings, now.base].join();
    if (this.#judged.state !== state) {
      const rows = this.#ready.rows(true);
      const losses: Losses = {};
      if (rows.size > 0) {
        losses.global = await this.#loss(this.#model("global"));
        if (now.arrays.size > 0) losses.personal = await this.#loss(this.#model("personal"));
      }
      this.#judged = { state, losses };
    }
    return this.#judged.losses;
  }

  async #loss(arrays: Map<string, NdArray>): Promise<number> {
    return (await this.#trainer.evaluate(arrays, this.#ready.rows(true)))["loss"] ?? Infinity;
  }

  /** Train the personal model on the examples here, without the coordinator; it stays unless it is worse than before. */
  personalise(options: PersonaliseOptions = {}): Promise<Personalised> {
    return this.#alone(() => this.#personalise(options));
  }

  async #personalise({ signal, onStep, start }: PersonaliseOptions): Promise<Personalised> {
    const rows = this.#ready.rows(false);
    if (countOf(rows) === 0) throw new ShoalError("no_rows", `${this.name} has no example to train on`, "observe(x, y) first");
    const { held, plan } = this.#adopting;
    const now = this.#personal.now;
    const losses = await this.#losses();
    const seed = await derive(await derive(0, this.name, "personalise", now.trainings));
    const which = start ?? (await this.serving());
    const order = { course: courseOf(held!.spec, 1), arrays: this.#model(which), start: this.#adopting.arrays, rows, seed };
    const told = (step: number, loss: number): void => {
      onStep?.(step, loss);
      this.#emitter.emit("progress", { step, loss, kind: "personal" });
    };
    const { arrays } = await this.#trainer.train(order, told, signal);
    const own = new Map(trained(plan!.manifest).map((name) => [name, arrays.get(name)!]));
    const after = losses.global === undefined ? undefined : await this.#loss(whole(this.#adopting.arrays, own, [...arrays.keys()]));
    const kept = after === undefined || after <= (losses.personal ?? Infinity);
    const trainings = now.trainings + 1;
    await this.#personal.keep(kept ? { ...now, arrays: own, base: held!.version.digest, trainings } : { ...now, trainings });
    return { before: least(losses), after, kept };
  }

  /** Check in once: train when assigned, send the update, take the newest version; whether an update was accepted. */
  sync({ signal }: { readonly signal?: AbortSignal } = {}): Promise<boolean> {
    return this.#alone(async () => (await this.#turn(signal)).accepted > 0);
  }

  async #turn(signal?: AbortSignal): Promise<Turn> {
    try {
      return await this.#took(signal);
    } catch (error) {
      if (error instanceof Unreachable && (await this.#outbox.pending()) > 0) await sendLater(this.#settings.task);
      throw error;
    }
  }

  async #took(signal?: AbortSignal): Promise<Turn> {
    let accepted = await this.#outbox.deliver(signal);
    let pause = 0;
    if (this.#examples !== undefined && this.#examples.count(false) >= Math.max(1, this.#settings.minimumRows ?? 10)) {
      const message = {
        training: [this.#settings.task],
        statistics: false,
        evaluation: false,
        wait: 0,
        utc_offset: -60 * new Date().getTimezoneOffset(),
        protocol: PROTOCOL,
      };
      const reply = await this.#connection.checkIn(message, signal);
      pause = reply.retry_after;
      if (reply.assignment === null) this.#emitter.emit("state", reply.reason);
      else accepted += await this.#carryOut(reply.assignment, reply.lease, signal);
    }
    await this.#refresh(signal);
    return { accepted, pause };
  }

  async #carryOut(assignment: Assignment, lease: number, signal?: AbortSignal): Promise<number> {
    this.#emitter.emit("state", `training round ${assignment.round} of ${assignment.task}`);
    try {
      await this.#worked(assignment, lease, signal);
    } catch (error) {
      await this.#givenBack(assignment, error);
      if (error instanceof ShoalError && error.code === "gone") return 0;
      throw error;
    }
    return this.#outbox.deliver(signal);
  }

  async #givenBack({ id }: Assignment, error: unknown): Promise<void> {
    const stopped = error instanceof Stopped || (error as Error).name === "AbortError";
    const why = error instanceof ShoalError ? `${error.code}: ${error.message}` : String(error);
    try {
      await this.#connection.release(id, stopped ? `stopped: ${why}` : why, stopped);
    } catch (failed) {
      if (!(failed instanceof ShoalError)) throw failed;
      this.#emitter.emit("error", failed); // the coordinator takes the place back when its lease is over
    }
  }

  async #worked(assignment: Assignment, lease: number, signal?: AbortSignal): Promise<void> {
    if (this.#adopting.held?.task !== assignment.task) await this.#adopting.refresh(assignment.task, signal);
    const { held, plan } = this.#adopting;
    if (held?.task !== assignment.task) throw new RuntimeMismatch(`task ${assignment.task} is not the newest ${this.#settings.task}`);
    const version = await this.#adopting.version(assignment.version, signal);
    const now = this.#personal.now;
    const fromPersonal = held.spec.local.start === "personal";
    const own = fromPersonal && now.arrays.size > 0 ? now.arrays : now.local;
    const names = plan!.manifest.arrays.map(({ name }) => name);
    const global = whole(new Map([...this.#adopting.arrays, ...version]), now.local, names);
    const order = {
      course: courseOf(held.spec, assignment.round),
      arrays: whole(global, own, names),
      start: global,
      rows: this.#ready.rows(false),
      seed: assignment.seed,
    };
    const started = performance.now();
    const done = await this.#trainer.train(order, this.#renewing(assignment.id, lease), signal);
    const change = changeOf(plan!, global, done.arrays);
    const arrays = encode(new Map([...change].map(([name, array]) => [`delta/${name}`, array])));
    const head = {
      digest: await digest(arrays),
      size: arrays.length,
      weight: done.rows * WEIGHT_UNIT,
      metrics: { loss: done.loss },
      costs: { train_seconds: (performance.now() - started) / 1000, network_seconds: 0, cpu_seconds: 0, bytes_up: 0, bytes_down: 0 },
      origin: null,
      uploaded: false,
    };
    const norm = lengthOf(change);
    const what = `change of ${change.size} arrays, length ${norm.toPrecision(4)}, learnt from ${done.rows} rows`;
    const { id, task, round } = assignment;
    const release: Release = { time: Date.now() / 1000, task, round, assignment: id, what, bytes: arrays.length, digest: head.digest, norm, rows: done.rows };
    // what stays here and what leaves become durable together: no training counts twice, none is lost
    await this.#personal.keep(this.#learnt(done.arrays, fromPersonal, assignment.version), this.#outbox.changes(release, head, arrays));
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

  /** Extend the lease as the work progresses, at most three times a lease. */
  #renewing(assignment: string, lease: number): (step: number, loss: number) => Promise<void> {
    let renewed = performance.now();
    return async (step, loss) => {
      this.#emitter.emit("progress", { step, loss, kind: "round" });
      if (performance.now() - renewed < (1000 * lease) / 3) return;
      renewed = performance.now();
      await this.#connection.renew(assignment).catch((error: unknown) => {
        if (!(error instanceof Unreachable)) throw error;
      });
    };
  }

  /** Sync and personalise in the background whenever conditions hold; what runs when one ends stops at once. */
  run(conditions: Conditions = {}): void {
    if (this.#schedule !== undefined) throw new ShoalError("running", `${this.name} runs already`, "stop() it first");
    const look = async (): Promise<string[]> => {
      const readings = await (this.#settings.probe ?? browserProbe)();
      return unmet(conditions, readings, this.#examples?.count(false) ?? 0);
    };
    const turn = async (signal: AbortSignal): Promise<number> => {
      const { pause } = await this.#alone(() => this.#turn(signal));
      await this.#personaliseOn(signal);
      return pause;
    };
    this.#schedule = new Schedule(look, turn, (error) => this.#emitter.emit("error", error));
  }

  async #personaliseOn(signal: AbortSignal): Promise<void> {
    const { now } = this.#personal;
    const mark = `${this.#examples?.mark(false)} ${this.#adopting.held?.version.digest}`;
    if ((this.#examples?.count(false) ?? 0) === 0 || this.#learntFrom === mark) return;
    await this.#alone(() => this.#personalise({ signal }));
    this.#learntFrom = mark;
    if (now.trainings < this.#personal.now.trainings) this.#emitter.emit("state", "the personal model was trained");
  }

  #learntFrom = "";

  /** End what `run` began, in the middle of a training if need be. */
  async stop(): Promise<void> {
    const schedule = this.#schedule;
    this.#schedule = undefined;
    await schedule?.stop();
  }

  async status(): Promise<Status> {
    const losses = this.#examples === undefined ? {} : await this.#losses();
    return {
      name: this.name,
      url: this.#url,
      task: this.#settings.task,
      examples: (this.#examples?.count(false) ?? 0) + (this.#examples?.count(true) ?? 0),
      heldOut: this.#examples?.count(true) ?? 0,
      version: this.#adopting.held?.version.number,
      runtime: this.#adopting.runtime,
      serving: this.#examples === undefined ? "global" : await this.serving(),
      globalLoss: losses.global,
      personalLoss: losses.personal,
      pending: await this.#outbox.pending(),
      running: this.#schedule !== undefined,
      waitingFor: this.#schedule?.waitingFor ?? [],
    };
  }

  /** Return everything that left this device, or is about to, oldest first. */
  async releases(): Promise<Release[]> {
    return (await this.#kept.all<Release>("releases")).sort((a, b) => a.time - b.time);
  }

  /** Leave for good: be revoked at the coordinator, and remove every example, model and key here. */
  async leave(): Promise<void> {
    await this.stop();
    await this.#alone(async () => {
      await this.#connection.leave().catch((error: unknown) => {
        if (!(error instanceof Refused)) throw error; // it knows us no more: what was wanted
      });
      await this.#kept.wipe();
    });
    this.#end();
  }

  /** Let everything go; it stays on the disk. */
  async close(): Promise<void> {
    await this.stop();
    this.#end();
  }

  #end(): void {
    this.#trainer.close();
    this.#kept.close();
  }

  /** Do one thing at a time, in this tab and in all others of this device. */
  #alone<T>(work: () => Promise<T>): Promise<T> {
    const done = this.#busy.then(async (): Promise<T> => {
      const locks = globalThis.navigator?.locks;
      return locks === undefined ? work() : ((await locks.request(`shoal-${this.#settings.task}`, work)) as T);
    });
    this.#busy = done.catch(() => undefined); // whoever asked for it is told
    return done;
  }
}

/** Return how a round is trained here. Throws for what a plan does not hold. */
function courseOf(spec: TaskSpec, round: number): Course {
  const local: LocalPlan = spec.local;
  const rate = Number(local.optimizer.options?.["lr"]) * factor(local.per_round as Rate, round - 1);
  if (local.rule !== null && local.rule !== undefined) {
    throw new Unsupported(`task ${spec.name} trains by a rule of its own`, "train it where its code is");
  }
  return { epochs: local.epochs, batch_size: local.batch_size, shuffle: local.shuffle, lr: rate, per_step: local.per_step as Rate };
}

function least(losses: Losses): number | undefined {
  const found = Object.values(losses);
  return found.length > 0 ? Math.min(...found) : undefined;
}

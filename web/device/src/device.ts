// A device whose predictions get better with use, and which sends nothing but updates.

import type { NdArray, Tree } from "./arrays.js";
import { Adopting } from "./adopting.js";
import { type Conditions, browserProbe, unmet } from "./conditions.js";
import { Connection } from "./connection.js";
import { Refused, ShoalError, Unreachable, Unsupported } from "./errors.js";
import { type DeviceEvents, Emitter, type Release } from "./events.js";
import { Examples, type Given } from "./examples.js";
import { type Identity, identified, leave } from "./identity.js";
import { type Kept, PREFIX, openIndexedDb } from "./kept.js";
import { Lock } from "./locks.js";
import { type Losses, Models } from "./models.js";
import { installed, sendLater } from "./offline.js";
import { Outbox } from "./outbox.js";
import { PersonalStore, whole } from "./personal.js";
import { type Plan, layoutOf } from "./plan.js";
import { located } from "./runtime.js";
import { Schedule, type Took } from "./schedule.js";
import { Stamp } from "./stamp.js";
import type { Joined, PersonaliseOptions, Personalised, Status, Which } from "./standing.js";
import { TakingPart, type Turn } from "./taking_part.js";
import { LocalTrainer, type Trainer, WorkerTrainer } from "./trainer.js";

/** One user's device. Make it with `join`; two tabs of one origin are one device, which one of them works at a time. */
export class Device {
  readonly #url: string;
  readonly #settings: Joined;
  readonly #kept: Kept;
  readonly #identity: Identity;
  readonly #emitter: Emitter;
  readonly #trainer: Trainer;
  readonly #stamp: Stamp;
  readonly #personal: PersonalStore;
  readonly #adopting: Adopting;
  readonly #outbox: Outbox;
  readonly #part: TakingPart;
  readonly #work: Lock;
  #models: Models | undefined;
  #planned: Plan | undefined;
  #schedule: Schedule | undefined;
  #learntFrom = "";
  #problem = "";
  #persisted = false;

  private constructor(url: string, settings: Joined, kept: Kept, identity: Identity) {
    const database = PREFIX + settings.task;
    const connection = new Connection(url, identity.key, settings.clock);
    this.#url = url;
    this.#settings = settings;
    this.#kept = kept;
    this.#identity = identity;
    this.#work = new Lock(database);
    this.#emitter = new Emitter(database);
    this.#trainer = settings.worker === undefined ? new LocalTrainer() : new WorkerTrainer(settings.worker);
    this.#stamp = new Stamp(kept, "stamp");
    this.#personal = new PersonalStore(kept, this.#stamp);
    this.#adopting = new Adopting({
      connection,
      kept,
      stamp: this.#stamp,
      trainer: this.#trainer,
      runtime: located(settings.runtime),
      emitter: this.#emitter,
      wrong: (arrays) => this.#wrong(arrays),
    });
    this.#outbox = new Outbox(connection, kept, this.#emitter, identity.coordinatorKey);
    this.#part = new TakingPart(settings, {
      connection,
      adopting: this.#adopting,
      outbox: this.#outbox,
      personal: this.#personal,
      trainer: this.#trainer,
      emitter: this.#emitter,
    });
  }

  /** Join a coordinator, or open a device that joined before, which needs neither token nor network. */
  static async join(url: string, settings: Joined): Promise<Device> {
    if (globalThis.isSecureContext === false || crypto.subtle === undefined) {
      throw new Unsupported("this page is not in a secure context", "serve it by https, or by http on this machine itself");
    }
    const kept = settings.kept ?? (await openIndexedDb(settings.task));
    try {
      const clock = settings.clock ?? (() => Date.now() / 1000);
      const identity = await identified(kept, { url, token: settings.token, name: settings.name, clock });
      const device = new Device(url, settings, kept, identity);
      await device.#opened();
      return device;
    } catch (error) {
      kept.close();
      throw error;
    }
  }

  async #opened(): Promise<void> {
    try {
      await this.#alone(async () => {
        await this.#refresh().catch((error: unknown) => this.#later(error));
      });
      const { service } = this.#settings;
      if (service !== undefined) await installed(service, await this.#trainer.files());
      // asking may take a user's answer: nothing waits for it
      void globalThis.navigator?.storage?.persist?.().then((persisted) => (this.#persisted = persisted));
    } catch (error) {
      this.#end();
      throw error;
    }
  }

  /** What is here works without a coordinator, or before the task is published: sync will tell. */
  #later(error: unknown): void {
    const later = error instanceof ShoalError && (error.transient || error instanceof Refused);
    if (!later) throw error;
    this.#problem = error.message;
    this.#emitter.emit("error", error);
  }

  /** Serve the version that the coordinator names. */
  async #refresh(signal?: AbortSignal): Promise<void> {
    const another = await this.#adopting.refresh(this.#settings.task, signal);
    await this.#fit();
    if (another) this.#emitter.emit("version", this.#adopting.held!.version);
  }

  /** Open the examples, and the personal model, for the plan that is at work now. */
  async #fit(): Promise<void> {
    const { plan } = this.#adopting;
    if (plan === undefined || plan === this.#planned) return;
    await this.#personal.fit(plan.manifest);
    const examples = await Examples.open(this.#kept, this.name, layoutOf(plan.manifest), this.#settings);
    const { name } = this;
    this.#models = new Models(name, {
      adopting: this.#adopting,
      personal: this.#personal,
      trainer: this.#trainer,
      emitter: this.#emitter,
      examples,
    });
    this.#planned = plan;
  }

  /** Say what is wrong with a version by the examples here: its loss must be a number. */
  async #wrong(arrays: Tree): Promise<string> {
    const layout = layoutOf(this.#adopting.plan!.manifest);
    const rows = (await Examples.open(this.#kept, this.name, layout, this.#settings)).rows(true);
    if (rows.size === 0) return "";
    const { loss = Number.NaN } = await this.#trainer.evaluate(whole(arrays, this.#personal.now.local, this.#adopting.names), rows);
    return Number.isFinite(loss) ? "" : `its loss on this device's held-out examples is ${loss}`;
  }

  get name(): string {
    return this.#identity.name;
  }

  /** Listen; call what is returned to stop. */
  on<K extends keyof DeviceEvents>(kind: K, hear: (event: DeviceEvents[K]) => void): () => void {
    return this.#emitter.on(kind, hear);
  }

  get #ready(): Models {
    if (this.#models === undefined) {
      throw new ShoalError("no_version", `there is no version of task ${this.#settings.task} here`, "sync() once it is published");
    }
    return this.#models;
  }

  /** Keep one example, or several with a leading axis, durable when the promise is fulfilled; they stay on this device. */
  async observe(x: Given | Readonly<Record<string, Given>>, y?: Given): Promise<void> {
    const named = y === undefined ? (x as Readonly<Record<string, Given>>) : { x: x as Given, y };
    await this.#ready.examples.add(named);
  }

  /** Return the output [rows, ...] for one example or several, of the model that is better here, or of `which`. */
  async predict(x: Given | Readonly<Record<string, Given>>, which?: Which): Promise<NdArray> {
    await this.#caughtUp();
    return this.#ready.predict(x, which);
  }

  /** Which model predicts: the one with the lower loss on held-out examples, else the global. */
  async serving(): Promise<Which> {
    await this.#caughtUp();
    return this.#ready.serving();
  }

  /** Train the personal model on the examples here, without the coordinator; it stays unless it is worse than before. */
  personalise(options: PersonaliseOptions = {}): Promise<Personalised> {
    return this.#alone(() => this.#personalise(options), options.signal);
  }

  async #personalise(options: PersonaliseOptions): Promise<Personalised> {
    const lesson = this.#ready.lesson;
    const done = await this.#ready.personalise(options);
    this.#learntFrom = lesson;
    return done;
  }

  /** Check in once: train when assigned, send the update, take the newest version; whether an update was accepted. */
  sync({ signal }: { readonly signal?: AbortSignal } = {}): Promise<boolean> {
    return this.#alone(async () => {
      const { accepted, problem } = await this.#turn(signal);
      if (problem !== undefined) throw problem;
      return accepted > 0;
    }, signal);
  }

  async #turn(signal?: AbortSignal): Promise<Turn> {
    try {
      const turn = await this.#part.turn(this.#models?.examples, signal);
      if (turn.accepted > 0 || !this.#adopting.stays(turn.told)) {
        await this.#refresh(signal).catch((error: unknown) => {
          if (!(error instanceof Refused && error.status === 404)) throw error; // the task is not published yet
        });
      }
      this.#problem = turn.problem?.message ?? "";
      return turn;
    } catch (error) {
      if (error instanceof ShoalError) this.#problem = error.message;
      if (error instanceof Unreachable && (await this.#outbox.pending()) > 0) await sendLater(this.#settings.task);
      throw error;
    }
  }

  /** Sync and personalise in the background whenever conditions hold; what runs when one ends stops at once. */
  run(conditions: Conditions = {}): void {
    if (this.#schedule?.running) throw new ShoalError("running", `${this.name} runs already`, "stop() it first");
    const look = async (): Promise<string[]> => {
      const readings = await (this.#settings.probe ?? browserProbe)();
      return unmet(conditions, readings, this.#models?.examples.count(false) ?? 0);
    };
    const turn = async (signal: AbortSignal): Promise<Took> => {
      const { pause, problem } = await this.#alone(() => this.#turn(signal), signal);
      await this.#personaliseOn(signal);
      return problem === undefined ? { pause } : { pause, problem };
    };
    const lock = new Lock(`${PREFIX}${this.#settings.task}-schedule`);
    this.#schedule = new Schedule(lock, look, turn, (error) => this.#emitter.emit("error", error));
  }

  async #personaliseOn(signal: AbortSignal): Promise<void> {
    const models = this.#models;
    if (models === undefined || models.examples.count(false) === 0 || this.#learntFrom === models.lesson) return;
    const { kept } = await this.#alone(() => this.#personalise({ signal }), signal);
    this.#emitter.emit("state", kept ? "the personal model is better now" : "the personal model stays as it was");
  }

  /** End what `run` began, in the middle of a training if need be. */
  async stop(): Promise<void> {
    const schedule = this.#schedule;
    this.#schedule = undefined;
    await schedule?.stop();
  }

  async status(): Promise<Status> {
    await this.#caughtUp();
    const losses: Losses = (await this.#models?.losses()) ?? {};
    const [heldOut = 0, rest = 0] = [this.#models?.examples.count(true), this.#models?.examples.count(false)];
    return {
      name: this.name,
      url: this.#url,
      task: this.#settings.task,
      examples: heldOut + rest,
      heldOut,
      version: this.#adopting.held?.version.number,
      runtime: this.#adopting.runtime,
      serving: (await this.#models?.serving()) ?? "global",
      globalLoss: losses.global,
      personalLoss: losses.personal,
      pending: await this.#outbox.pending(),
      released: (await this.releases()).length,
      running: this.#schedule?.running ?? false,
      waitingFor: this.#schedule?.running ? this.#schedule.waitingFor : [],
      problem: this.#problem,
      refused: this.#adopting.problem,
      persisted: this.#persisted,
    };
  }

  /** Return everything that left this device, or is about to, oldest first. */
  async releases(): Promise<Release[]> {
    return (await this.#kept.all<Release>("releases")).sort((a, b) => a.time - b.time);
  }

  /**
   * Leave for good: remove every example and model here, be revoked at the coordinator, remove the key.
   *
   * Throws Unreachable when the coordinator cannot be told now: nothing but the key is left then, and the next `join` or
   * `leave` goes on from there.
   */
  async leave(): Promise<void> {
    await this.stop();
    await this.#work.hold(() => leave(this.#kept, this.#settings.clock ?? (() => Date.now() / 1000)));
    this.#end();
  }

  /** Let everything go; it stays on the disk. */
  async close(): Promise<void> {
    await this.stop();
    this.#end();
  }

  #end(): void {
    this.#trainer.close();
    this.#emitter.close();
    this.#kept.close();
  }

  /** Do one thing at a time, in this tab and in all others of this device. */
  #alone<T>(work: () => Promise<T>, signal?: AbortSignal): Promise<T> {
    return this.#work.hold(async () => {
      await this.#caughtUp();
      return work();
    }, signal);
  }

  /** Take what another tab made of the models and the examples. */
  async #caughtUp(): Promise<void> {
    if (await this.#stamp.moved()) {
      await this.#personal.load();
      await this.#adopting.load();
      await this.#fit();
    }
    await this.#models?.examples.catchUp();
  }
}

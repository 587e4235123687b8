// The two models of a device: the global one and its own, which of them predicts, and how its own one learns.

import type { NdArray } from "./arrays.js";
import type { Adopting } from "./adopting.js";
import { DataError, ShoalError } from "./errors.js";
import type { Emitter } from "./events.js";
import { type Examples, type Given, cast, rowsIn } from "./examples.js";
import type { PersonalStore } from "./personal.js";
import { whole } from "./personal.js";
import { trained } from "./plan.js";
import { derive } from "./seeds.js";
import type { PersonaliseOptions, Personalised, Which } from "./standing.js";
import type { Trainer } from "./trainer.js";
import { countOf, courseOf } from "./training.js";

export type Losses = Partial<Record<Which, number>>;
type Named = Readonly<Record<string, Given>>;

/** What a device has, once there is a version: its examples and its models. */
export class Models {
  readonly #name: string;
  readonly #adopting: Adopting;
  readonly #personal: PersonalStore;
  readonly #trainer: Trainer;
  readonly #emitter: Emitter;
  readonly examples: Examples;
  #judged: { state: string; losses: Losses } = { state: "", losses: {} };

  constructor(name: string, parts: ModelParts) {
    this.#name = name;
    this.#adopting = parts.adopting;
    this.#personal = parts.personal;
    this.#trainer = parts.trainer;
    this.#emitter = parts.emitter;
    this.examples = parts.examples;
  }

  /** Return the output [rows, ...] for one example or several, of the model that is better here. */
  async predict(x: Given | Named, which?: Which): Promise<NdArray> {
    const named: Named = isNamed(x) ? x : { x };
    const { layout } = this.examples;
    const given = Object.entries(named);
    const unknown = given.find(([name]) => !layout.has(name));
    if (unknown !== undefined) throw new DataError(`a prediction from ${unknown[0]}`, `an example has ${[...layout.keys()]}`);
    const batch = new Map(given.map(([name, value]) => [name, cast(name, value, layout)]));
    rowsIn(batch);
    return this.#trainer.predict(this.#model(which ?? (await this.serving())), batch);
  }

  #model(which: Which): Map<string, NdArray> {
    const { arrays, local } = this.#personal.now;
    return whole(this.#adopting.arrays, which === "personal" ? arrays : local, this.#adopting.names);
  }

  /** Which model predicts: the one with the lower loss on held-out examples, else the global. */
  async serving(): Promise<Which> {
    const { personal = Infinity, global = Infinity } = await this.losses();
    return personal < global ? "personal" : "global";
  }

  /** Return the losses on held-out examples, measured again when there are others, or other models. */
  async losses(): Promise<Losses> {
    const now = this.#personal.now;
    const state = [this.examples.mark(true), this.#adopting.held?.version.digest, now.trainings, now.base, now.local.size].join();
    if (this.#judged.state !== state) {
      const losses: Losses = {};
      if (this.examples.count(true) > 0) {
        losses.global = await this.#loss(this.#model("global"));
        if (now.arrays.size > 0) losses.personal = await this.#loss(this.#model("personal"));
      }
      this.#judged = { state, losses };
    }
    return this.#judged.losses;
  }

  async #loss(arrays: Map<string, NdArray>): Promise<number> {
    return (await this.#trainer.evaluate(arrays, this.examples.rows(true)))["loss"] ?? Infinity;
  }

  /** Another mark whenever there is something new to learn from. */
  get lesson(): string {
    return `${this.examples.mark(false)} ${this.#adopting.held?.version.digest}`;
  }

  /** Train the personal model by the task's local plan on the examples here; it stays unless it is worse than before. */
  async personalise({ signal, onStep, start }: PersonaliseOptions): Promise<Personalised> {
    const rows = this.examples.rows(false);
    if (countOf(rows) === 0) throw new ShoalError("no_rows", `${this.#name} has no example to train on`, "observe(x, y) first");
    const { held, plan, arrays: version } = this.#adopting;
    const now = this.#personal.now;
    const losses = await this.losses();
    const seed = await derive(0, this.#name, "personalise", now.trainings);
    const which = start ?? (await this.serving());
    const order = { course: courseOf(held!.spec, 1), arrays: this.#model(which), start: version, rows, seed };
    const told = (step: number, loss: number): void => {
      onStep?.(step, loss);
      this.#emitter.emit("progress", { step, loss, kind: "personal" });
    };
    const { arrays } = await this.#trainer.train(order, told, signal);
    const own = new Map(trained(plan!.manifest).map((name) => [name, arrays.get(name)!]));
    const after = losses.global === undefined ? undefined : await this.#loss(whole(version, own, this.#adopting.names));
    const kept = after === undefined || after <= (losses.personal ?? Infinity);
    const trainings = now.trainings + 1;
    await this.#personal.keep(kept ? { ...now, arrays: own, base: held!.version.digest, trainings } : { ...now, trainings });
    return { before: least(losses), after, kept };
  }
}

/** What the models of a device are made of. */
export interface ModelParts {
  readonly adopting: Adopting;
  readonly personal: PersonalStore;
  readonly trainer: Trainer;
  readonly emitter: Emitter;
  readonly examples: Examples;
}

function isNamed(x: Given | Named): x is Named {
  return typeof x === "object" && !("values" in x && "dtype" in x) && !ArrayBuffer.isView(x) && !Array.isArray(x);
}

function least(losses: Losses): number | undefined {
  const found = Object.values(losses);
  return found.length > 0 ? Math.min(...found) : undefined;
}

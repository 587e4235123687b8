// A device's own model, which stays on it.

import type { NdArray, Tree } from "./arrays.js";
import type { Change, Kept } from "./kept.js";
import type { Manifest } from "./plan.js";
import type { Stamp } from "./stamp.js";

const RECORD = "personal";
const NOTHING: Personal = { arrays: new Map(), local: new Map(), base: "", trainings: 0 };

/** The personal model, and what goes with the global one. */
export interface Personal {
  /** What training moved of the personal model, travelling and local arrays: empty before it was trained. */
  readonly arrays: Tree;
  /** The local arrays that the last assignment left, which complete the global model here. */
  readonly local: Tree;
  /** The digest of the version that the personal model came from. */
  readonly base: string;
  readonly trainings: number;
}

export class PersonalStore {
  readonly #kept: Kept;
  readonly #stamp: Stamp;
  now = NOTHING;

  constructor(kept: Kept, stamp: Stamp) {
    this.#kept = kept;
    this.#stamp = stamp;
  }

  async load(): Promise<void> {
    this.now = (await this.#kept.get<Personal>("device", RECORD)) ?? NOTHING;
  }

  /** Begin anew where the task has another model now. */
  async fit({ arrays }: Manifest): Promise<void> {
    const described = new Map(arrays.map(({ name, shape }) => [name, shape.join()]));
    const fits = [...this.now.arrays, ...this.now.local].every(([name, { shape }]) => described.get(name) === shape.join());
    if (!fits) await this.keep({ ...NOTHING, trainings: this.now.trainings });
  }

  /** Make this the present one, together with other changes: all of them or none. */
  async keep(personal: Personal, others: readonly Change[] = []): Promise<void> {
    await this.#stamp.change([...others, { store: "device", key: RECORD, value: personal }]);
    this.now = personal;
  }
}

/** Return every array of a model: `own` ones, and for the rest those of the version and the task. */
export function whole(version: Tree, own: Tree, names: readonly string[]): Map<string, NdArray> {
  return new Map(names.map((name) => [name, (own.get(name) ?? version.get(name))!]));
}

// Whether another tab of the same device changed what they share: every change carries another stamp.

import type { Change, Kept, StoreName } from "./kept.js";

const STORE: StoreName = "device";

export class Stamp {
  readonly #kept: Kept;
  readonly #name: string;
  #seen: string | undefined;

  constructor(kept: Kept, name: string) {
    this.#kept = kept;
    this.#name = name;
  }

  /** Whether there was a change since the last call that was not made here. */
  async moved(): Promise<boolean> {
    const found = (await this.#kept.get<string>(STORE, this.#name)) ?? "";
    const moved = found !== this.#seen;
    this.#seen = found;
    return moved;
  }

  /** Make changes here, with a new stamp: all of them or none. */
  async change(changes: readonly Change[]): Promise<void> {
    const value = crypto.randomUUID();
    await this.#kept.change([...changes, { store: STORE, key: this.#name, value }]);
    this.#seen = value;
  }
}

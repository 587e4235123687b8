// One at a time, in this tab and in all others of one device.

import { ShoalError, Stopped } from "./errors.js";

/** Names what only one may do at a time; work waits its turn in the order in which it was asked for. */
export class Lock {
  readonly #name: string;
  #last: Promise<unknown> = Promise.resolve();

  constructor(name: string) {
    this.#name = name;
  }

  /** Do the work when it is its turn. A signal ends the wait; the work itself listens to it or not. */
  async hold<T>(work: () => Promise<T>, signal?: AbortSignal): Promise<T> {
    try {
      return await this.#held(work, signal);
    } catch (error) {
      if (signal?.aborted && !(error instanceof ShoalError)) throw new Stopped(String(signal.reason));
      throw error;
    }
  }

  #held<T>(work: () => Promise<T>, signal?: AbortSignal): Promise<T> {
    signal?.throwIfAborted();
    const locks = globalThis.navigator?.locks;
    if (locks !== undefined) return locks.request(this.#name, signal === undefined ? {} : { signal }, work) as Promise<T>;
    // a process in Node has its folder to itself
    const done = this.#last.then(work);
    this.#last = done.catch(() => undefined); // whoever asked for it is told
    return done;
  }
}

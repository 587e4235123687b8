// Turns in the background, while conditions hold: what runs when one ends stops at once.

import { ShoalError, Stopped } from "./errors.js";
import type { Lock } from "./locks.js";

const PROBE_MS = 1000;
const FIRST_SECONDS = 0.2;
const MOST_SECONDS = 30;
const ELSEWHERE = "another tab of this device, which runs its schedule";

/** What a turn came to: seconds until the next one, and what kept work from being done. */
export interface Took {
  readonly pause: number;
  readonly problem?: ShoalError;
}

/**
 * Runs from the moment it is made until `stop`, or until only a person can help: `problem` says why then.
 *
 * A failure that passes is tried again, less and less often. Of several tabs one runs, the others wait.
 */
export class Schedule {
  readonly #look: () => Promise<string[]>;
  readonly #turn: (signal: AbortSignal) => Promise<Took>;
  readonly #failed: (error: Error) => void;
  readonly #stop = new AbortController();
  readonly #ended: Promise<void>;
  #failures = 0;
  waitingFor: readonly string[] = [ELSEWHERE];
  problem = "";
  running = true;

  /** `look` says which conditions do not hold, `turn` does the work, `failed` is told what went wrong. */
  constructor(lock: Lock, look: () => Promise<string[]>, turn: (signal: AbortSignal) => Promise<Took>, failed: (error: Error) => void) {
    this.#look = look;
    this.#turn = turn;
    this.#failed = failed;
    this.#ended = this.#held(lock);
  }

  async #held(lock: Lock): Promise<void> {
    const { signal } = this.#stop;
    try {
      await lock.hold(() => this.#run(), signal);
    } catch (error) {
      if (!signal.aborted) this.#end(error as Error);
    } finally {
      this.running = false;
    }
  }

  async stop(): Promise<void> {
    this.#stop.abort("the schedule was stopped");
    await this.#ended;
  }

  async #run(): Promise<void> {
    while (!this.#stop.signal.aborted && this.problem === "") {
      this.waitingFor = await this.#look();
      const pause = this.waitingFor.length > 0 ? PROBE_MS / 1000 : await this.#once();
      await this.#paused(pause);
    }
  }

  async #once(): Promise<number> {
    try {
      const { pause, problem } = await this.#watched();
      if (problem !== undefined) return this.#setback(problem);
      this.#failures = 0;
      return pause;
    } catch (error) {
      if (error instanceof Stopped) return PROBE_MS / 1000;
      if (error instanceof ShoalError && error.transient) return this.#setback(error);
      this.#end(error as Error);
      return 0;
    }
  }

  #setback(error: ShoalError): number {
    this.#failed(error);
    const told = "retryAfter" in error ? Number(error.retryAfter ?? 0) : 0;
    const delay = Math.min(FIRST_SECONDS * 2 ** Math.min(this.#failures, 64), MOST_SECONDS);
    this.#failures += 1;
    return Math.max(told, delay * (1 - Math.random() / 2)); // callers spread out
  }

  #end(error: Error): void {
    this.problem = error.message;
    this.#failed(error);
  }

  /** Take a turn, and stop it when a condition ends. */
  async #watched(): Promise<Took> {
    const stop = new AbortController();
    const both = AbortSignal.any([stop.signal, this.#stop.signal]);
    const watch = setInterval(async () => {
      this.waitingFor = await this.#look();
      if (this.waitingFor.length > 0) stop.abort(this.waitingFor.join(", "));
    }, PROBE_MS);
    try {
      return await this.#turn(both);
    } finally {
      clearInterval(watch);
    }
  }

  #paused(seconds: number): Promise<void> {
    return new Promise((resolve) => {
      const timer = setTimeout(done, seconds * 1000);
      const signal = this.#stop.signal;
      function done(): void {
        clearTimeout(timer);
        signal.removeEventListener("abort", done);
        resolve();
      }
      signal.addEventListener("abort", done);
      if (signal.aborted) done();
    });
  }
}

// Turns in the background, while conditions hold: what runs when one ends stops at once.

import { ShoalError, Stopped } from "./errors.js";

const PROBE_MS = 1000;
const MOST_SECONDS = 300;

/** Runs from the moment it is made until `stop`. */
export class Schedule {
  readonly #look: () => Promise<string[]>;
  readonly #turn: (signal: AbortSignal) => Promise<number>;
  readonly #failed: (error: Error) => void;
  readonly #stop = new AbortController();
  readonly #ended: Promise<void>;
  waitingFor: readonly string[] = [];

  /** `look` says which conditions do not hold; `turn` does the work and returns the seconds until the next one. */
  constructor(look: () => Promise<string[]>, turn: (signal: AbortSignal) => Promise<number>, failed: (error: Error) => void) {
    this.#look = look;
    this.#turn = turn;
    this.#failed = failed;
    this.#ended = this.#run();
  }

  async stop(): Promise<void> {
    this.#stop.abort("the schedule was stopped");
    await this.#ended;
  }

  async #run(): Promise<void> {
    for (let failures = 0; !this.#stop.signal.aborted; ) {
      this.waitingFor = await this.#look();
      let pause = PROBE_MS / 1000;
      if (this.waitingFor.length === 0) {
        try {
          pause = await this.#watched();
          failures = 0;
        } catch (error) {
          pause = this.#said(error as Error, failures);
          failures += 1;
        }
      }
      await this.#paused(pause);
    }
  }

  #said(error: Error, failures: number): number {
    if (error instanceof Stopped || error.name === "AbortError") return PROBE_MS / 1000;
    this.#failed(error);
    const told = error instanceof ShoalError && "retryAfter" in error ? Number(error.retryAfter ?? 0) : 0;
    return Math.max(told, Math.min(2 ** failures, MOST_SECONDS));
  }

  /** Take a turn, and stop it when a condition ends. */
  async #watched(): Promise<number> {
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

// The device behind the page: it guesses, learns what it is taught, and takes part in rounds.

import { Device, Refused, type Release, ShoalError, Unreachable, type Which } from "@shoal/device";

import { SWAYS, type Stroke, numbersOf, swayed } from "./strokes.js";

const TASK = "digits";
const DRAWINGS = "drawings";
const SHOWN = 50;

/** What is not more than the digits that every browser begins with is not worth an update: nothing was drawn here. */
const STARTING_ROWS = 80;

/** Rounds of training that one correction gets at most. */
const TRIES = 10;

/** How often a browser without a drawing looks for a new version. */
const WATCH_MS = 5000;

/** How long after its update was taken a version is asked for; the round has ended by then. */
const SOON_MS = 9000;

/** What a model makes of a drawing: ten probabilities, and the digit with the highest. */
export interface Guess {
  readonly digit: number;
  readonly shares: readonly number[];
}

/** A drawing as the model sees it: 64 numbers from 0 to 16, and what it is. */
export interface Drawing {
  readonly numbers: readonly number[];
  readonly digit: number;
}

/** What both models say. `device` is the one that serves here. */
export interface Guesses {
  readonly device: Guess;
  readonly everyone: Guess;
}

export interface Taught {
  readonly before: Guesses;
  readonly after: Guesses;
  readonly milliseconds: number;
}

interface Start {
  readonly x: readonly number[];
  readonly y: number;
}

/** What the page is told. */
export interface LearnerEvents {
  state(what: string): void;
  version(number: number): void;
  failed(error: Error): void;
  released(): void;
}

export class Learner {
  readonly #device: Device;
  readonly #events: LearnerEvents;
  #taking: AbortController | undefined;
  #running = false;

  private constructor(device: Device, events: LearnerEvents) {
    this.#device = device;
    this.#events = events;
    device.on("state", (what) => events.state(what));
    device.on("version", ({ number }) => events.version(number));
    device.on("error", (error) => events.failed(error));
    device.on("accepted", (release) => this.#accepted(release));
    device.on("rejected", () => events.released());
  }

  /** Join with a token, or open what an earlier visit joined; nothing leaves while `paused`. */
  static async open(token: string | undefined, paused: boolean, events: LearnerEvents): Promise<Learner> {
    const page = new URL(".", location.href);
    const device = await Device.join(new URL("..", page).href.replace(/\/$/, ""), {
      task: TASK,
      ...(token !== undefined && { token }),
      runtime: { from: await runtimeAddress(page) },
      worker: new URL("worker.js", page),
      service: new URL("service.js", page),
      minimumRows: STARTING_ROWS + 1,
    });
    const learner = new Learner(device, events);
    if (token !== undefined && !paused && !(await learner.#isKnown())) await forget(device, token);
    await learner.#begin(page);
    return learner;
  }

  /** Whether the coordinator knows this device: not when another one is at its address now. */
  async #isKnown(): Promise<boolean> {
    try {
      await this.#device.sync();
      return true;
    } catch (error) {
      if (isStrange(error)) return false;
      if (error instanceof ShoalError && error.transient) return true;
      throw error;
    }
  }

  /** Keep the digits that every browser begins with, in one piece: an interrupted visit begins anew. */
  async #begin(page: URL): Promise<void> {
    if ((await this.#device.status()).examples > 0) return;
    const starting = (await (await fetch(new URL("starting.json", page))).json()) as readonly Start[];
    await this.#device.observe(starting.map(({ x }) => x), starting.map(({ y }) => y));
  }

  get name(): string {
    return this.#device.name;
  }

  async version(): Promise<number> {
    return (await this.#device.status()).version ?? 0;
  }

  async guess(strokes: readonly Stroke[]): Promise<Guesses> {
    const numbers = numbersOf(strokes);
    const [device, everyone] = await Promise.all([this.#guessed(numbers), this.#guessed(numbers, "global")]);
    return { device, everyone };
  }

  async #guessed(numbers: Float32Array, which?: Which): Promise<Guess> {
    const { values } = await this.#device.predict(numbers, which);
    return guessOf(Array.from(values as Float32Array));
  }

  /** Learn what a drawing is: observe it as one hand may draw it, and train the model of this device until it knows. */
  async teach(strokes: readonly Stroke[], digit: number): Promise<Taught> {
    const started = performance.now();
    const before = await this.guess(strokes);
    const ways = SWAYS.map((sway) => numbersOf(swayed(strokes, sway)));
    await this.#device.observe(ways, ways.map(() => digit));
    let after = before;
    for (let tries = 0; tries < TRIES && (tries === 0 || after.device.digit !== digit); tries += 1) {
      await this.#device.personalise();
      after = await this.guess(strokes);
    }
    this.#remember({ numbers: Array.from(numbersOf(strokes)), digit });
    if (this.#taking !== undefined && !this.#running) this.#run();
    return { before, after, milliseconds: performance.now() - started };
  }

  /** Return what was drawn here, newest first. */
  drawings(): Drawing[] {
    return JSON.parse(localStorage.getItem(DRAWINGS) ?? "[]") as Drawing[];
  }

  #remember(drawing: Drawing): void {
    localStorage.setItem(DRAWINGS, JSON.stringify([drawing, ...this.drawings()].slice(0, SHOWN)));
  }

  /** Take part in rounds from now on; while nothing was drawn here, only take the versions that others make. */
  takePart(): void {
    this.#taking ??= new AbortController();
    if (this.drawings().length === 0) void this.#watch(this.#taking.signal);
    else if (!this.#running) this.#run();
  }

  #run(): void {
    this.#running = true;
    this.#device.run();
  }

  async #watch(signal: AbortSignal): Promise<void> {
    while (!signal.aborted && !this.#running) {
      await this.#device.sync({ signal }).catch((error: Error) => this.#events.failed(error));
      await new Promise((resolve) => setTimeout(resolve, WATCH_MS));
    }
  }

  /** Take part no more, from this moment: a training for a round ends in its middle, and nothing is sent. */
  async pause(): Promise<void> {
    this.#taking?.abort("paused");
    this.#taking = undefined;
    this.#running = false;
    await this.#device.stop();
  }

  /** Return all that left this device, newest first. */
  async releases(): Promise<Release[]> {
    return (await this.#device.releases()).reverse();
  }

  /** Remove every drawing, model and key here, and be forgotten by the coordinator. */
  async leave(): Promise<void> {
    await this.pause();
    await this.#device.leave();
    localStorage.removeItem(DRAWINGS);
  }

  #accepted(release: Release): void {
    this.#events.released();
    this.#events.state(`sent for round ${release.round}; waiting for the others`);
    const signal = this.#taking?.signal;
    setTimeout(() => {
      if (signal?.aborted === false) this.#device.sync({ signal }).catch((error: Error) => this.#events.failed(error));
    }, SOON_MS);
  }
}

/** Whether an error says that the coordinator does not know this device. */
export function isStrange(error: unknown): boolean {
  return error instanceof Refused && error.status === 401;
}

/** Whether an error says that the coordinator cannot be reached now. */
export function isAway(error: unknown): boolean {
  return error instanceof Unreachable;
}

/** Remove what an earlier coordinator's device left here, and begin anew with the token; never returns. */
async function forget(device: Device, token: string): Promise<never> {
  await device.leave();
  localStorage.removeItem(DRAWINGS);
  location.hash = `token=${token}`;
  location.reload();
  return new Promise(() => undefined);
}

/** Return where the coordinator serves the runtime's files. Throws with its words where it has none. */
async function runtimeAddress(page: URL): Promise<string> {
  const place = new URL("../runtime/", page);
  const reply = await fetch(place);
  const said = (await reply.json()) as { from: string; code: string; problem: string; fix: string };
  if (!reply.ok) throw new ShoalError(said.code, said.problem, said.fix);
  return new URL(said.from, place).href;
}

/** Turn logits into probabilities. */
export function guessOf(logits: readonly number[]): Guess {
  const most = Math.max(...logits);
  const raised = logits.map((logit) => Math.exp(logit - most));
  const total = raised.reduce((sum, each) => sum + each, 0);
  return { digit: logits.indexOf(most), shares: raised.map((each) => each / total) };
}

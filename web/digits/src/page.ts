// The page: a pad to draw in, what two models say, ten answers to choose from, and what left this device.

import { type Guesses, Learner, type LearnerEvents, type Taught, isAway, isStrange } from "./learner.js";
import { Pad } from "./pad.js";
import type { Stroke } from "./strokes.js";
import * as view from "./view.js";

const STRANGE = "This browser may not join, or not any more. Open the whole address that the terminal shows: it ends in #token=…";

const INSECURE =
  "Browsers keep keys only in pages that come by https, or by http from the same machine. On an Android phone over USB: " +
  "adb reverse tcp:8080 tcp:8080, then open http://127.0.0.1:8080 there. Otherwise put TLS before it, as docs/digits.md says.";

/** Take the token out of the address, so that it stays in no history and on no screenshot. */
function takeToken(): string | undefined {
  const token = new URLSearchParams(location.hash.slice(1)).get("token") ?? undefined;
  if (location.hash !== "") history.replaceState(null, "", location.pathname + location.search);
  return token;
}

function isPaused(): boolean {
  return localStorage.getItem("sharing") === "no";
}

class Page implements LearnerEvents {
  #learner: Learner | undefined;
  #asked = 0;
  #teaching = false;
  #asking = false;
  readonly #pad = new Pad(view.pad, {
    drawn: (strokes, unfinished) => void this.#drawn(strokes, unfinished),
    typed: (digit) => void this.#teach(digit),
    said: view.say,
  });

  async start(): Promise<void> {
    if (!isSecureContext) return view.failed(new Error(INSECURE));
    const token = takeToken();
    view.onAnswer((digit) => void this.#teach(digit));
    view.onClear(() => this.#pad.clear());
    try {
      this.#learner = await Learner.open(token, isPaused(), this);
    } catch (error) {
      return view.failed(isStrange(error) ? new Error(STRANGE) : (error as Error));
    }
    view.ready(this.#learner.name, this.#learner.drawings());
    view.version(await this.#learner.version(), false);
    await this.#show();
    view.onSharing((on) => this.#share(on));
    view.onLeave(() => this.#leave());
    await this.#share(!isPaused());
  }

  async #share(on: boolean): Promise<void> {
    localStorage.setItem("sharing", on ? "yes" : "no");
    view.sharing(on, this.#learner!.drawings().length);
    if (on) this.#learner!.takePart();
    else await this.#learner!.pause();
  }

  async #leave(): Promise<void> {
    try {
      await this.#learner!.leave();
      localStorage.clear();
      view.left();
    } catch (error) {
      view.failed(error as Error);
    }
  }

  async #drawn(strokes: readonly Stroke[], unfinished: boolean): Promise<void> {
    view.drawing(strokes.length > 0);
    if (this.#learner === undefined || this.#teaching) return;
    this.#asked += 1;
    if (strokes.length === 0) return view.noGuess();
    await this.#guess(!unfinished);
  }

  /** Show what the models say of the newest drawing; while one answer is worked out, further ones are not asked for. */
  async #guess(aloud: boolean): Promise<void> {
    const asked = this.#asked;
    if (this.#asking && !aloud) return;
    this.#asking = true;
    try {
      const guesses = await this.#learner!.guess(this.#pad.strokes);
      if (asked === this.#asked) this.#shown(guesses, aloud);
    } finally {
      this.#asking = false;
    }
  }

  #shown(guesses: Guesses, aloud: boolean): void {
    view.guessed(guesses);
    if (aloud) view.say(`This device says ${guesses.device.digit}, everyone’s model ${guesses.everyone.digit}. Tell it what it is.`);
  }

  async #teach(digit: number): Promise<void> {
    const strokes = this.#pad.strokes;
    if (this.#learner === undefined || this.#teaching || strokes.length === 0) return;
    this.#teaching = true;
    view.teaching(digit);
    try {
      const taught = await this.#learner.teach(strokes, digit);
      view.guessed(taught.after);
      view.taught(digit, said(digit, taught), this.#learner.drawings());
    } catch (error) {
      view.failed(error as Error);
    } finally {
      this.#teaching = false;
      view.drawing(strokes.length > 0);
    }
  }

  state(what: string): void {
    view.state(plainly(what));
  }

  version(number: number): void {
    view.version(number, true);
    void this.#show();
    if (this.#learner !== undefined && this.#pad.strokes.length > 0 && !this.#teaching) void this.#guess(false);
  }

  failed(error: Error): void {
    if (isStrange(error)) view.failed(new Error(STRANGE));
    else view.state(isAway(error) ? "no network: what is to be sent waits here" : error.message);
  }

  released(): void {
    void this.#show();
  }

  async #show(): Promise<void> {
    if (this.#learner === undefined) return;
    view.releases(await this.#learner.releases(), await this.#learner.version());
  }
}

/** Return what a device or its coordinator says of its state in the page's words. */
function plainly(what: string): string {
  const round = /^round (\d+) of /.exec(what)?.[1];
  if (round !== undefined) return `training for round ${round}`;
  if (/^already accepted/.test(what)) return "sent; waiting for the others";
  if (/personal model/.test(what)) return "your model learnt from the newest version";
  return what;
}

function said(digit: number, { before, after, milliseconds }: Taught): string {
  const took = `${(milliseconds / 1000).toFixed(1)} s`;
  const was = before.device.digit;
  if (after.device.digit !== digit) return `It tried for ${took} and still says ${after.device.digit}. Draw another ${digit} and tell it again.`;
  if (was === digit) return `Right, and learnt: ${view.percent(before.device.shares[digit]!)} sure before, ${view.percent(after.device.shares[digit]!)} now.`;
  return `Learnt in ${took}: it said ${was}, now it says ${digit}. Draw it once more and see.`;
}

await new Page().start();

// Where the numbers are worked out: in a worker where there is one, so that the page stays smooth.

import { type NdArray, type Tree } from "./arrays.js";
import { ShoalError, Stopped, type Told, raised } from "./errors.js";
import { proved } from "./golden.js";
import { readPlan } from "./plan.js";
import { type RuntimeSettings, runtimes } from "./runtime.js";
import { type Course, type OnStep, type Opened, type Trained, train } from "./training.js";

/** A plan at work, proved by its golden step. */
export interface Trainer {
  /** Read a plan and prove a runtime on it; return that runtime's name. */
  adopt(plan: Uint8Array<ArrayBuffer>, settings: RuntimeSettings): Promise<string>;
  train(order: Order, onStep: OnStep, signal?: AbortSignal): Promise<Trained>;
  predict(arrays: Tree, batch: Tree): Promise<NdArray>;
  evaluate(arrays: Tree, batch: Tree): Promise<Record<string, number>>;
  /** Return the addresses that the code came from which works out the numbers. */
  files(): Promise<string[]>;
  close(): void;
}

/** One training: `start` is the global model, which FedProx pulls to. */
export interface Order {
  readonly course: Course;
  readonly arrays: Tree;
  readonly start: Tree;
  readonly rows: Tree;
  readonly seed: number;
}

/** Trains in this thread: in Node, and inside of the worker. */
export class LocalTrainer implements Trainer {
  #opened: Opened | undefined;

  async adopt(plan: Uint8Array<ArrayBuffer>, settings: RuntimeSettings): Promise<string> {
    this.#opened = await proved(readPlan(plan), await runtimes(settings));
    return this.#opened.runtime.name;
  }

  async train({ course, arrays, start, rows, seed }: Order, onStep: OnStep, signal?: AbortSignal): Promise<Trained> {
    return train(this.#ready, course, arrays, rows, seed, start, async (step, loss) => {
      if (signal?.aborted) throw new Stopped(String(signal.reason ?? "stopped"));
      await onStep(step, loss);
    });
  }

  predict(arrays: Tree, batch: Tree): Promise<NdArray> {
    return this.#ready.predict(arrays, batch);
  }

  evaluate(arrays: Tree, batch: Tree): Promise<Record<string, number>> {
    return this.#ready.evaluate(arrays, batch);
  }

  async files(): Promise<string[]> {
    return performance.getEntriesByType("resource").map(({ name }) => name);
  }

  close(): void {}

  get #ready(): Opened {
    if (this.#opened === undefined) throw new ShoalError("no_version", "there is no model here yet", "sync() first");
    return this.#opened;
  }
}

type Method = "adopt" | "train" | "predict" | "evaluate" | "files";

interface Asked {
  readonly id: number;
  readonly method?: Method;
  readonly given?: unknown[];
  readonly stop?: string;
}

interface Answered {
  readonly id: number;
  readonly step?: number;
  readonly loss?: number;
  readonly result?: unknown;
  readonly failed?: Told;
}

/** Trains in a worker: `dist/worker.js`, served by the app's own origin. */
export class WorkerTrainer implements Trainer {
  readonly #worker: Worker;
  readonly #waiting = new Map<number, { resolve(value: unknown): void; reject(error: Error): void; onStep?: OnStep }>();
  #asked = 0;

  constructor(address: string | URL) {
    this.#worker = new Worker(address, { type: "module", name: "shoal" });
    this.#worker.onmessage = ({ data }: MessageEvent<Answered>) => this.#heard(data);
    this.#worker.onerror = (event) => this.#died(new Error(`the trainer's worker failed: ${event.message}`));
  }

  adopt(plan: Uint8Array<ArrayBuffer>, settings: RuntimeSettings): Promise<string> {
    return this.#ask("adopt", [plan, settings]) as Promise<string>;
  }

  train(order: Order, onStep: OnStep, signal?: AbortSignal): Promise<Trained> {
    return this.#ask("train", [order], onStep, signal) as Promise<Trained>;
  }

  predict(arrays: Tree, batch: Tree): Promise<NdArray> {
    return this.#ask("predict", [arrays, batch]) as Promise<NdArray>;
  }

  evaluate(arrays: Tree, batch: Tree): Promise<Record<string, number>> {
    return this.#ask("evaluate", [arrays, batch]) as Promise<Record<string, number>>;
  }

  files(): Promise<string[]> {
    return this.#ask("files", []) as Promise<string[]>;
  }

  close(): void {
    this.#worker.terminate();
    this.#died(new Stopped("the device was closed"));
  }

  #ask(method: Method, given: unknown[], onStep?: OnStep, signal?: AbortSignal): Promise<unknown> {
    const id = (this.#asked += 1);
    const stop = (): void => this.#stop(id, String(signal?.reason ?? "stopped"));
    const answered = new Promise((resolve, reject) => {
      this.#waiting.set(id, { resolve, reject, ...(onStep && { onStep }) });
      if (signal?.aborted) reject(new Stopped(String(signal.reason)));
      else this.#worker.postMessage({ id, method, given } satisfies Asked);
    });
    signal?.addEventListener("abort", stop);
    return answered.finally(() => {
      signal?.removeEventListener("abort", stop);
      this.#waiting.delete(id);
    });
  }

  #heard({ id, step, loss, result, failed }: Answered): void {
    const waiting = this.#waiting.get(id);
    if (waiting === undefined) return;
    if (step !== undefined) this.#stepped(id, step, loss!);
    else if (failed !== undefined) waiting.reject(raised(failed));
    else waiting.resolve(result);
  }

  #stepped(id: number, step: number, loss: number): void {
    const { onStep, reject } = this.#waiting.get(id)!;
    const told = async (): Promise<void> => onStep?.(step, loss);
    told().catch((error: Error) => {
      reject(error);
      this.#stop(id, error.message);
    });
  }

  #stop(id: number, stop: string): void {
    this.#worker.postMessage({ id, stop } satisfies Asked);
  }

  #died(error: Error): void {
    for (const { reject } of this.#waiting.values()) reject(error);
    this.#waiting.clear();
  }
}

/** Answer a `WorkerTrainer` in a worker. */
export function serve(scope: DedicatedWorkerGlobalScope): void {
  const trainer = new LocalTrainer();
  const stops = new Map<number, AbortController>();
  const call = (method: Method, given: unknown[], id: number): Promise<unknown> => {
    if (method !== "train") return (trainer[method] as (...given: unknown[]) => Promise<unknown>)(...given);
    const stop = new AbortController();
    stops.set(id, stop);
    const told: OnStep = (step, loss) => scope.postMessage({ id, step, loss } satisfies Answered);
    return trainer.train(given[0] as Order, told, stop.signal).finally(() => stops.delete(id));
  };
  scope.onmessage = async ({ data: { id, method, given = [], stop } }: MessageEvent<Asked>) => {
    if (stop !== undefined) return stops.get(id)?.abort(stop);
    try {
      scope.postMessage({ id, result: await call(method!, given, id) } satisfies Answered);
    } catch (error) {
      const { code = "failed", problem = (error as Error).message, fix = "see the browser's console" } = error as ShoalError;
      scope.postMessage({ id, failed: { code, problem, fix } } satisfies Answered);
    }
    return undefined;
  };
}

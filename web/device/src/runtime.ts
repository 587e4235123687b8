// What runs a plan's graphs: an ONNX runtime, loaded from where the app serves it.

import type * as Ort from "onnxruntime-web";

import type { DType, NdArray, Tree, Values } from "./arrays.js";

/** A graph that is ready to run. */
export interface Graph {
  readonly inputs: readonly string[];
  run(given: Tree): Promise<Map<string, NdArray>>;
}

/** One way to run graphs. `name` tells a person which. */
export interface Runtime {
  readonly name: string;
  open(graph: Uint8Array): Promise<Graph>;
}

type Module = typeof Ort;
type Provider = "wasm" | "webgpu" | "cpu";

/** What Node is asked for where no runtime is named: native code first. */
const PACKAGES = ["onnxruntime-node", "onnxruntime-web"];
const MOST_THREADS = 4;

const TYPES: Readonly<Record<DType, Ort.Tensor.Type>> = {
  F64: "float64",
  F32: "float32",
  I64: "int64",
  I32: "int32",
  I16: "int16",
  I8: "int8",
  U8: "uint8",
  BOOL: "bool",
};

const DTYPES: Readonly<Record<string, DType>> = Object.fromEntries(
  Object.entries(TYPES).map(([dtype, type]) => [type, dtype as DType]),
);

/** Where the runtime's files lie, and whether a graphics processor may be tried first. */
export interface RuntimeSettings {
  /** The address of the folder with ort.wasm.min.mjs (ends in "/"), or the name of an installed package. */
  readonly from: string;
  /** Try WebGPU first, which needs ort.webgpu.min.mjs and its files in the folder too: 27 MB. */
  readonly webgpu?: boolean;
  /** Threads, where the page is cross-origin isolated (half of the processors, at most 4); 1 elsewhere. */
  readonly threads?: number;
}

/** Return settings that mean the same in a worker: a folder's address, if it is relative, is so to the page. */
export function located(settings: RuntimeSettings = { from: "" }): RuntimeSettings {
  const here = globalThis.document?.baseURI;
  if (here === undefined || !settings.from.endsWith("/")) return settings;
  return { ...settings, from: new URL(settings.from, here).href };
}

/** Return the runtimes of this device, the fastest first: each has to prove itself before it trains. */
export async function runtimes(settings: RuntimeSettings): Promise<Runtime[]> {
  const { from, webgpu = false } = settings;
  const sources = from === "" ? PACKAGES : [from];
  const plain = sources.flatMap((source) => [opened(settings, source, "all"), opened(settings, source, "disabled")]);
  return webgpu && (await hasGraphics()) ? [opened(settings, from, "all", "webgpu"), ...plain] : plain;
}

/** Whether there is a graphics processor that WebGPU may use; a browser may know WebGPU and have none. */
async function hasGraphics(): Promise<boolean> {
  const { gpu } = globalThis.navigator as { readonly gpu?: { requestAdapter(): Promise<unknown> } };
  return (await gpu?.requestAdapter()) != null;
}

function opened(settings: RuntimeSettings, source: string, optimized: "all" | "disabled", graphics?: "webgpu"): Runtime {
  const provider: Provider = graphics ?? (source === "onnxruntime-node" ? "cpu" : "wasm");
  const threads = provider === "wasm" ? threadsOf(settings) : 1;
  const options: Ort.InferenceSession.SessionOptions = {
    executionProviders: [provider],
    graphOptimizationLevel: optimized,
    logSeverityLevel: 3,
  };
  const words = [provider, ...(threads > 1 ? [`with ${threads} threads`] : []), ...(optimized === "all" ? [] : ["without optimizations"])];
  const queue = new Queue();
  return {
    name: words.join(" "),
    open: async (graph) => {
      const ort = await loaded(source, provider, threads);
      return new OrtGraph(ort, await ort.InferenceSession.create(graph, options), queue);
    },
  };
}

async function loaded(source: string, provider: Provider, threads: number): Promise<Module> {
  const isFolder = source.endsWith("/");
  const file = provider === "webgpu" ? "ort.webgpu.min.mjs" : "ort.wasm.min.mjs";
  const ort = (await import(/* @vite-ignore */ isFolder ? `${source}${file}` : source)) as Module;
  if (isFolder) ort.env.wasm.wasmPaths = source;
  ort.env.logLevel = "error";
  ort.env.wasm.numThreads = threads;
  return ort;
}

function threadsOf({ threads }: RuntimeSettings): number {
  if (!globalThis.crossOriginIsolated) return 1;
  return threads ?? Math.max(1, Math.min(MOST_THREADS, Math.floor(navigator.hardwareConcurrency / 2)));
}

/** One thing after the other: a session on a graphics processor refuses to run twice at once. */
class Queue {
  #last: Promise<unknown> = Promise.resolve();

  next<T>(work: () => Promise<T>): Promise<T> {
    const done = this.#last.then(work);
    this.#last = done.catch(() => undefined); // whoever asked for it is told
    return done;
  }
}

class OrtGraph implements Graph {
  readonly #ort: Module;
  readonly #session: Ort.InferenceSession;
  readonly #queue: Queue;

  constructor(ort: Module, session: Ort.InferenceSession, queue: Queue) {
    this.#ort = ort;
    this.#session = session;
    this.#queue = queue;
  }

  get inputs(): readonly string[] {
    return this.#session.inputNames;
  }

  /** Run on arrays by name; those that the graph does not take are left out. */
  async run(given: Tree): Promise<Map<string, NdArray>> {
    const feeds: Record<string, Ort.Tensor> = {};
    for (const name of this.inputs) {
      const { dtype, shape, values } = given.get(name)!;
      feeds[name] = new this.#ort.Tensor(TYPES[dtype], values as Float32Array, [...shape]) as Ort.Tensor;
    }
    const results = await this.#queue.next(() => this.#session.run(feeds));
    return new Map(Object.entries(results).map(([name, result]) => [name, read(result)]));
  }
}

function read(result: Ort.Tensor): NdArray {
  return { dtype: DTYPES[result.type]!, shape: result.dims, values: result.data as Values };
}

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
  /** The address of the folder with ort.wasm.min.mjs, or the name of an installed package. */
  readonly from: string;
  readonly webgpu?: boolean;
  /** Threads, where the page is cross-origin isolated; 1 elsewhere. */
  readonly threads?: number;
}

/** Return settings that mean the same in a worker: a folder's address, if it is relative, is so to the page. */
export function located(settings: RuntimeSettings = { from: "" }): RuntimeSettings {
  const here = globalThis.document?.baseURI;
  if (here === undefined || !settings.from.endsWith("/")) return settings;
  return { ...settings, from: new URL(settings.from, here).href };
}

/** Return the runtimes of this device, the fastest first: each has to prove itself before it trains. */
export async function runtimes({ from, webgpu = false, threads = 1 }: RuntimeSettings): Promise<Runtime[]> {
  const isFolder = from.endsWith("/");
  const file = webgpu ? "ort.webgpu.min.mjs" : "ort.wasm.min.mjs";
  const ort = (await import(/* @vite-ignore */ isFolder ? `${from}${file}` : from)) as Module;
  if (isFolder) ort.env.wasm.wasmPaths = from;
  ort.env.logLevel = "error";
  ort.env.wasm.numThreads = globalThis.crossOriginIsolated ? threads : 1;
  const base: Provider = from === "onnxruntime-node" ? "cpu" : "wasm";
  const plain = [opened(ort, base, "all"), opened(ort, base, "disabled")];
  return webgpu && "gpu" in navigator ? [opened(ort, "webgpu", "all"), ...plain] : plain;
}

function opened(ort: Module, provider: Provider, optimized: "all" | "disabled"): Runtime {
  const options: Ort.InferenceSession.SessionOptions = {
    executionProviders: [provider],
    graphOptimizationLevel: optimized,
    logSeverityLevel: 3,
  };
  return {
    name: optimized === "all" ? provider : `${provider} without optimizations`,
    open: async (graph) => new OrtGraph(ort, await ort.InferenceSession.create(graph, options)),
  };
}

class OrtGraph implements Graph {
  readonly #ort: Module;
  readonly #session: Ort.InferenceSession;

  constructor(ort: Module, session: Ort.InferenceSession) {
    this.#ort = ort;
    this.#session = session;
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
    const results = await this.#session.run(feeds);
    return new Map(Object.entries(results).map(([name, result]) => [name, read(result)]));
  }
}

function read(result: Ort.Tensor): NdArray {
  return { dtype: DTYPES[result.type]!, shape: result.dims, values: result.data as Values };
}

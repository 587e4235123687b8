// Build dist/: one minified file for each entry, and the types beside them.

import { execFileSync } from "node:child_process";
import { rmSync } from "node:fs";

import { build } from "esbuild";

const ENTRIES = ["index", "node", "worker", "parts"];

rmSync("dist", { recursive: true, force: true });
await build({
  entryPoints: ENTRIES.map((name) => `src/${name}.ts`),
  outdir: "dist",
  bundle: true,
  splitting: true,
  format: "esm",
  target: "es2022",
  minify: true,
  sourcemap: false,
  chunkNames: "shared-[hash]",
  external: ["onnxruntime-web", "onnxruntime-node", "node:*"],
  legalComments: "none",
});
execFileSync("node_modules/.bin/tsc", ["--emitDeclarationOnly"], { stdio: "inherit" });

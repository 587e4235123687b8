// Build dist/: one minified file for each entry, and the types beside them.

import { execFileSync } from "node:child_process";
import { rmSync } from "node:fs";

import { build } from "esbuild";

const ENTRIES = ["index", "node", "worker", "parts"];
const SHARED = {
  outdir: "dist",
  bundle: true,
  format: "esm",
  target: "es2022",
  minify: true,
  sourcemap: false,
  legalComments: "none",
};

rmSync("dist", { recursive: true, force: true });
await build({
  ...SHARED,
  entryPoints: ENTRIES.map((name) => `src/${name}.ts`),
  splitting: true,
  chunkNames: "shared-[hash]",
  external: ["onnxruntime-web", "onnxruntime-node", "node:*"],
});
// in one piece: not every browser takes a service worker that imports
await build({ ...SHARED, entryPoints: ["src/service.ts"] });
execFileSync("node_modules/.bin/tsc", ["--emitDeclarationOnly"], { stdio: "inherit" });

// Build the page of `shoal demo --digits` into the Python package that carries it. The tools are those of web/device.

import { execFileSync } from "node:child_process";
import { cpSync, rmSync } from "node:fs";
import { createRequire } from "node:module";
import { fileURLToPath } from "node:url";

const here = (path) => fileURLToPath(new URL(path, import.meta.url));
const { build } = createRequire(here("../device/package.json"))("esbuild");
const outdir = here("../../src/shoal/demo/static/digits");

execFileSync(here("../device/node_modules/.bin/tsc"), ["--project", here("tsconfig.json")], { stdio: "inherit" });
rmSync(outdir, { recursive: true, force: true });
await build({
  entryPoints: [here("src/page.ts"), here("../device/src/worker.ts"), here("../device/src/service.ts")],
  outdir,
  entryNames: "[name]",
  bundle: true,
  format: "esm",
  target: "es2022",
  minify: true,
  legalComments: "none",
  alias: { "@shoal/device": here("../device/src/index.ts") },
  external: ["onnxruntime-web", "onnxruntime-node", "node:*"],
});
cpSync(here("static"), outdir, { recursive: true });

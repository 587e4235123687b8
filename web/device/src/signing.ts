// What a device signs of its calls: RFC 9421 with the digest of RFC 9530, in the one form that a coordinator reads.

import { base64, sha256 } from "./digests.js";
import { type DeviceKey, signature } from "./keys.js";

const COMPONENTS = '("@method" "@path" "@query" "content-digest")';

/** One call: `target` is path and query below the coordinator's address, percent-encoded. */
export interface Call {
  readonly method: string;
  readonly target: string;
  readonly body: Uint8Array<ArrayBuffer>;
}

/** Return the headers that sign a call at `created`, in seconds since 1970. */
export async function signed(key: DeviceKey, call: Call, created: number, nonce = fresh()): Promise<Record<string, string>> {
  const digest = `sha-256=:${base64(await sha256(call.body))}:`;
  const milliseconds = Math.floor(created * 1000);
  const time = `${Math.floor(milliseconds / 1000)}.${String(milliseconds % 1000).padStart(3, "0")}`;
  const params = `${COMPONENTS};created=${time};nonce="${nonce}";keyid="${key.id}"`;
  const value = await signature(key, new TextEncoder().encode(base(call, digest, params)));
  return { "Content-Digest": digest, "Signature-Input": `shoal=${params}`, Signature: `shoal=:${base64(value)}:` };
}

function base({ method, target }: Call, digest: string, params: string): string {
  const mark = target.indexOf("?");
  const [path, query] = mark < 0 ? [target, ""] : [target.slice(0, mark), target.slice(mark + 1)];
  return [
    `"@method": ${method}`,
    `"@path": ${path}`,
    `"@query": ?${query}`,
    `"content-digest": ${digest}`,
    `"@signature-params": ${params}`,
  ].join("\n");
}

function fresh(): string {
  return base64(crypto.getRandomValues(new Uint8Array(16))).replaceAll("+", "-").replaceAll("/", "_").slice(0, 22);
}

// What a device signs of its calls: the form of docs/security.md (RFC 9421, with the digest of RFC 9530).

import { base64 } from "./codec.js";

const COMPONENTS = '("@method" "@path" "@query" "content-digest")';

/** Make a device's key, whose private half no script can read. */
export async function newKey() {
  const pair = await crypto.subtle.generateKey("Ed25519", false, ["sign", "verify"]);
  const raw = new Uint8Array(await crypto.subtle.exportKey("raw", pair.publicKey));
  const hashed = new Uint8Array(await crypto.subtle.digest("SHA-256", raw));
  const id = Array.from(hashed.subarray(0, 16), (byte) => byte.toString(16).padStart(2, "0")).join("");
  return { pair, publicKey: base64(raw), id };
}

/** Return the headers that sign a call at `created`, in seconds since 1970; `body` is bytes, empty for none. */
export async function signed({ pair, id }, method, target, body, created) {
  const digest = `sha-256=:${base64(new Uint8Array(await crypto.subtle.digest("SHA-256", body)))}:`;
  const milliseconds = Math.floor(created * 1000);
  const time = `${Math.floor(milliseconds / 1000)}.${String(milliseconds % 1000).padStart(3, "0")}`;
  const params = `${COMPONENTS};created=${time};nonce="${nonce()}";keyid="${id}"`;
  const [path, query = ""] = target.split("?", 2);
  const base = `"@method": ${method}\n"@path": ${path}\n"@query": ?${query}\n"content-digest": ${digest}\n"@signature-params": ${params}`;
  const value = new Uint8Array(await crypto.subtle.sign("Ed25519", pair.privateKey, new TextEncoder().encode(base)));
  return { "Content-Digest": digest, "Signature-Input": `shoal=${params}`, Signature: `shoal=:${base64(value)}:` };
}

function nonce() {
  return base64(crypto.getRandomValues(new Uint8Array(16))).replaceAll("+", "-").replaceAll("/", "_").slice(0, 22);
}

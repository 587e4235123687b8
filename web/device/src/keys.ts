// A device's key: made here, and its private half never readable by a script where the store can keep it so.

import { base64, hex, sha256 } from "./digests.js";

export type KeyType = "ed25519" | "p-256";

const P256 = { name: "ECDSA", namedCurve: "P-256" } as const;

/** The key that signs every call. `publicKey` is raw, in base64; `id` the name it signs under. */
export interface DeviceKey {
  readonly kind: KeyType;
  readonly privateKey: CryptoKey;
  readonly publicKey: string;
  readonly id: string;
}

/** Make a key: Ed25519, or P-256 where the runtime lacks it. `extractable` only where the store holds bytes. */
export async function newKey(extractable = false): Promise<DeviceKey> {
  try {
    return await described("ed25519", (await crypto.subtle.generateKey("Ed25519", extractable, USES)) as CryptoKeyPair);
  } catch (error) {
    if (!(error instanceof DOMException) || error.name !== "NotSupportedError") throw error;
    return described("p-256", await crypto.subtle.generateKey(P256, extractable, USES));
  }
}

const USES: KeyUsage[] = ["sign", "verify"];

async function described(kind: KeyType, pair: CryptoKeyPair): Promise<DeviceKey> {
  const raw = new Uint8Array(await crypto.subtle.exportKey("raw", pair.publicKey));
  return { kind, privateKey: pair.privateKey, publicKey: base64(raw), id: hex(await sha256(raw)).slice(0, 32) };
}

/** Return a signature of 64 bytes. */
export async function signature(key: DeviceKey, data: Uint8Array<ArrayBuffer>): Promise<Uint8Array> {
  const how = key.kind === "ed25519" ? "Ed25519" : { name: "ECDSA", hash: "SHA-256" };
  return new Uint8Array(await crypto.subtle.sign(how, key.privateKey, data));
}

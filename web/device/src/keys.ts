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

/** What a store that holds bytes only keeps of a key, and a browser's store as it is. */
export type PackedKey = DeviceKey | (Omit<DeviceKey, "privateKey"> & { readonly pkcs8: ArrayBuffer });

/** Return a key as a store keeps it. */
export async function packed(key: DeviceKey, keepsKeys: boolean): Promise<PackedKey> {
  if (keepsKeys) return key;
  const { kind, publicKey, id } = key;
  return { kind, publicKey, id, pkcs8: await crypto.subtle.exportKey("pkcs8", key.privateKey) };
}

/** Return the key that a store kept. */
export async function unpacked(kept: PackedKey): Promise<DeviceKey> {
  if (!("pkcs8" in kept)) return kept;
  const how = kept.kind === "ed25519" ? "Ed25519" : P256;
  const { kind, publicKey, id } = kept;
  return { kind, publicKey, id, privateKey: await crypto.subtle.importKey("pkcs8", kept.pkcs8, how, false, ["sign"]) };
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

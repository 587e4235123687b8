// The coordinator's signature under a receipt, checked with the key that was pinned when the device enrolled.

import { fromBase64 } from "./digests.js";
import { ShoalError } from "./errors.js";
import type { Receipt } from "./messages.js";

/** Throw unless the holder of `publicKey` (raw Ed25519, in base64) signed this receipt for these bytes. */
export async function checkReceipt(publicKey: string, receipt: Receipt, digest: string): Promise<void> {
  const { assignment, accepted_at, signature } = receipt;
  const text = `shoal receipt 1\n${assignment}\n${receipt.digest}\n${accepted_at.toFixed(6)}\n`;
  const key = await imported(publicKey);
  // a browser without Ed25519 cannot check; the digest it can
  const holds =
    key === undefined ||
    (await crypto.subtle.verify("Ed25519", key, fromBase64(signature), new TextEncoder().encode(text)));
  if (holds && receipt.digest === digest) return;
  throw new ShoalError(
    "wrong_receipt",
    `the receipt for assignment ${assignment} is not that of this coordinator for these bytes`,
    "find out who answers at its address; the update stays here",
  );
}

async function imported(publicKey: string): Promise<CryptoKey | undefined> {
  try {
    return await crypto.subtle.importKey("raw", fromBase64(publicKey), "Ed25519", false, ["verify"]);
  } catch (error) {
    if (error instanceof DOMException && error.name === "NotSupportedError") return undefined;
    throw error;
  }
}

// The service worker seen from the page: registered, told what to keep, asked to send what waits. Nothing relies on it.

import { PREFIX } from "./kept.js";

/** Background Sync, which not every browser offers and TypeScript does not know. */
interface Syncing {
  readonly sync?: { register(tag: string): Promise<void> };
}

/** Register a service worker; it keeps the files that this page and `files` came from. Whether there is one now. */
export async function installed(address: string | URL, files: readonly string[]): Promise<boolean> {
  const workers = globalThis.navigator?.serviceWorker;
  if (workers === undefined) return false;
  const registration = await workers.register(address, { scope: new URL(".", location.href).href });
  const worker = registration.installing ?? registration.waiting ?? registration.active;
  const scripts = performance.getEntriesByType("resource").map(({ name }) => name);
  const keep = [location.href, ...scripts, ...files].filter(isOurs).map((url) => url.split("#")[0]!);
  worker?.postMessage({ keep: [...new Set(keep)] });
  return true;
}

function isOurs(url: string): boolean {
  const { origin, pathname } = new URL(url);
  return origin === location.origin && !pathname.startsWith("/v1/");
}

/** Ask for what waits of a device to be sent when there is a network again, where the browser can. */
export async function sendLater(name: string): Promise<void> {
  const registration = await globalThis.navigator?.serviceWorker?.getRegistration();
  // a browser may refuse it to a site that is seldom used: the next visit sends
  await (registration as Syncing | undefined)?.sync?.register(PREFIX + name).catch(() => undefined);
}

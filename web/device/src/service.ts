// The service worker: the app opens without a network, and updates that wait are sent when the network is back.
//
// A file whose address holds a SHA-256 never changes and is kept for ever; every other is asked for anew, and taken
// from here when nobody answers. Calls to a coordinator (/v1/) pass untouched.

import { Connection } from "./connection.js";
import { Emitter } from "./events.js";
import { enrolled } from "./identity.js";
import { PREFIX, openIndexedDb } from "./kept.js";
import { Outbox } from "./outbox.js";

declare const self: ServiceWorkerGlobalScope;

const FILES = "shoal-files";
const DIGEST = /[/=._-][0-9a-f]{64}(?![0-9a-f])/;

/** Background Sync, which TypeScript does not know. */
interface SyncEvent extends ExtendableEvent {
  readonly tag: string;
}

self.addEventListener("install", (event) => event.waitUntil(self.skipWaiting()));
self.addEventListener("activate", (event) => event.waitUntil(self.clients.claim()));

self.addEventListener("fetch", (event) => {
  const { method, url, headers } = event.request;
  const { origin, pathname } = new URL(url);
  if (method !== "GET" || headers.has("range") || origin !== self.location.origin || pathname.startsWith("/v1/")) return;
  event.respondWith(DIGEST.test(url) ? keptFirst(event.request) : askedFirst(event.request));
});

/** The page tells which files it came from: those of its first visit passed before this worker was there. */
self.addEventListener("message", (event) => {
  const { keep } = event.data as { readonly keep?: readonly string[] };
  if (keep !== undefined) event.waitUntil(Promise.all(keep.map((url) => keptFirst(new Request(url)))));
});

self.addEventListener("sync", (event) => {
  const { tag } = event as SyncEvent;
  if (tag.startsWith(PREFIX)) (event as SyncEvent).waitUntil(deliver(tag));
});

async function keptFirst(request: Request): Promise<Response> {
  const found = await (await caches.open(FILES)).match(request, { ignoreVary: true });
  return found ?? fetched(request);
}

async function askedFirst(request: Request): Promise<Response> {
  try {
    return await fetched(request);
  } catch (error) {
    const found = await (await caches.open(FILES)).match(request, { ignoreVary: true });
    if (found === undefined) throw error;
    return found;
  }
}

async function fetched(request: Request): Promise<Response> {
  const response = await fetch(request);
  if (response.ok && response.type === "basic") {
    const copy = response.clone();
    const cache = await caches.open(FILES);
    // a full disk must not keep the page from its answer
    await cache.put(request, copy).catch((error: unknown) => console.warn("shoal: a file is not kept for later", error));
  }
  return response;
}

/** Send what one device made durable; a page that works on it now sends it itself. */
async function deliver(database: string): Promise<void> {
  await navigator.locks.request(database, { ifAvailable: true }, async (lock) => {
    if (lock === null) return;
    const kept = await openIndexedDb(database.slice(PREFIX.length));
    const emitter = new Emitter(database);
    try {
      const known = await enrolled(kept);
      if (known === undefined) return;
      const connection = new Connection(known.url, known.identity.key);
      await new Outbox(connection, kept, emitter, known.identity.coordinatorKey).deliver();
    } finally {
      emitter.close();
      kept.close();
    }
  });
}

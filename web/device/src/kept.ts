// What must outlive the tab. One interface; IndexedDB in a browser, a folder in Node (node.ts).

import { StorageFull } from "./errors.js";

export const STORES = ["device", "outbox", "releases", "examples", "models"] as const;
export type StoreName = (typeof STORES)[number];

/** Values by key in a few stores; a change is on the disk when its promise is fulfilled. */
export interface Kept {
  /** Whether the store keeps a CryptoKey as it is, so that no script can ever read it. */
  readonly keepsKeys: boolean;
  get<T>(store: StoreName, key: IDBValidKey): Promise<T | undefined>;
  all<T>(store: StoreName): Promise<T[]>;
  put(store: StoreName, key: IDBValidKey, value: unknown): Promise<void>;
  /** Make several changes in one: all of them or none. */
  change(changes: readonly Change[]): Promise<void>;
  /** Remove everything, for good, but for what these changes write. */
  wipe(changes: readonly Change[]): Promise<void>;
  close(): void;
}

/** One value to write, or to remove where there is no `value`. */
export interface Change {
  readonly store: StoreName;
  readonly key: IDBValidKey;
  readonly value?: unknown;
}

/** How the names of databases begin. */
export const PREFIX = "shoal-";

/** Open what an earlier visit kept under a name. */
export async function openIndexedDb(name: string): Promise<Kept> {
  const request = indexedDB.open(PREFIX + name, 1);
  request.onupgradeneeded = () => {
    for (const store of STORES) request.result.createObjectStore(store);
  };
  return new IndexedDbKept(await done(request));
}

class IndexedDbKept implements Kept {
  readonly keepsKeys = true;
  readonly #database: IDBDatabase;

  constructor(database: IDBDatabase) {
    this.#database = database;
    // another tab that wipes or upgrades must not wait for this one for ever
    database.onversionchange = () => database.close();
  }

  get<T>(store: StoreName, key: IDBValidKey): Promise<T | undefined> {
    return done(this.#database.transaction(store).objectStore(store).get(key)) as Promise<T | undefined>;
  }

  all<T>(store: StoreName): Promise<T[]> {
    return done(this.#database.transaction(store).objectStore(store).getAll()) as Promise<T[]>;
  }

  put(store: StoreName, key: IDBValidKey, value: unknown): Promise<void> {
    return this.change([{ store, key, value }]);
  }

  change(changes: readonly Change[]): Promise<void> {
    const stores = [...new Set(changes.map(({ store }) => store))];
    // the default, "relaxed", ends before the bytes are on the disk
    const transaction = this.#database.transaction(stores, "readwrite", { durability: "strict" });
    make(transaction, changes);
    return ended(transaction);
  }

  wipe(changes: readonly Change[]): Promise<void> {
    const transaction = this.#database.transaction(STORES, "readwrite", { durability: "strict" });
    for (const store of STORES) transaction.objectStore(store).clear();
    make(transaction, changes);
    return ended(transaction);
  }

  close(): void {
    this.#database.close();
  }
}

function make(transaction: IDBTransaction, changes: readonly Change[]): void {
  for (const { store, key, value } of changes) {
    const objects = transaction.objectStore(store);
    if (value === undefined) objects.delete(key);
    else objects.put(value, key);
  }
}

function ended(transaction: IDBTransaction): Promise<void> {
  return new Promise((resolve, reject) => {
    transaction.oncomplete = () => resolve();
    transaction.onabort = () => reject(failure(transaction.error));
  });
}

function failure(error: DOMException | null): unknown {
  return error?.name === "QuotaExceededError" ? new StorageFull("this site's storage is full") : error;
}

function done<T>(request: IDBRequest<T>): Promise<T> {
  return new Promise((resolve, reject) => {
    request.onsuccess = () => resolve(request.result);
    request.onerror = () => reject(failure(request.error));
  });
}

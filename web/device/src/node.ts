// A device in Node: a folder in place of IndexedDB.

import { mkdir, open, readFile, readdir, rename, rm, unlink } from "node:fs/promises";
import { join } from "node:path";
import { deserialize, serialize } from "node:v8";

import { StorageFull } from "./errors.js";
import { type Change, type Kept, STORES, type StoreName } from "./kept.js";

const JOURNAL = "journal";

/** Open a folder of mode 0700 with what an earlier process kept; one process at a time. */
export async function openFolder(path: string): Promise<Kept> {
  for (const store of STORES) await mkdir(join(path, store), { recursive: true, mode: 0o700 });
  const kept = new FolderKept(path);
  await kept.recover();
  return kept;
}

class FolderKept implements Kept {
  readonly keepsKeys = false;
  readonly #path: string;
  #last: Promise<void> = Promise.resolve();

  constructor(path: string) {
    this.#path = path;
  }

  async get<T>(store: StoreName, key: IDBValidKey): Promise<T | undefined> {
    const bytes = await readIfThere(this.#file(store, key));
    return bytes === undefined ? undefined : (deserialize(bytes) as T);
  }

  async all<T>(store: StoreName): Promise<T[]> {
    const names = (await readdir(join(this.#path, store))).filter((name) => !name.endsWith(".new")).sort();
    return Promise.all(names.map(async (name) => deserialize(await readFile(join(this.#path, store, name))) as T));
  }

  put(store: StoreName, key: IDBValidKey, value: unknown): Promise<void> {
    return this.change([{ store, key, value }]);
  }

  /** Write a journal first: a process that dies in the middle finishes the change when it opens the folder again. */
  change(changes: readonly Change[]): Promise<void> {
    const made = this.#last.then(() => this.#changed(changes));
    this.#last = made.catch(() => undefined); // whoever asked for it is told; the next change does not depend on it
    return made;
  }

  async #changed(changes: readonly Change[]): Promise<void> {
    if (changes.length > 1) await durably(join(this.#path, JOURNAL), serialize(changes));
    for (const { store, key, value } of changes) {
      const file = this.#file(store, key);
      if (value === undefined) await rm(file, { force: true });
      else await durably(file, serialize(value));
    }
    if (changes.length > 1) await unlink(join(this.#path, JOURNAL));
  }

  async recover(): Promise<void> {
    const bytes = await readIfThere(join(this.#path, JOURNAL));
    if (bytes !== undefined) await this.#changed(deserialize(bytes) as Change[]);
  }

  async wipe(changes: readonly Change[]): Promise<void> {
    await this.change(changes);
    const stay = new Set(changes.map(({ store, key }) => this.#file(store, key)));
    for (const store of STORES) {
      const files = (await readdir(join(this.#path, store))).map((name) => join(this.#path, store, name));
      for (const file of files.filter((name) => !stay.has(name))) await rm(file, { force: true });
    }
  }

  close(): void {}

  #file(store: StoreName, key: IDBValidKey): string {
    return join(this.#path, store, Buffer.from(JSON.stringify(key)).toString("hex"));
  }
}

async function durably(file: string, bytes: Uint8Array): Promise<void> {
  try {
    const opened = await open(`${file}.new`, "w", 0o600);
    try {
      await opened.writeFile(bytes);
      await opened.sync();
    } finally {
      await opened.close();
    }
    await rename(`${file}.new`, file);
  } catch (error) {
    if ((error as NodeJS.ErrnoException).code === "ENOSPC") throw new StorageFull(`no space for ${file}`);
    throw error;
  }
}

async function readIfThere(file: string): Promise<Buffer | undefined> {
  try {
    return await readFile(file);
  } catch (error) {
    if ((error as NodeJS.ErrnoException).code === "ENOENT") return undefined;
    throw error;
  }
}

// What must outlive the tab, in IndexedDB: the device's key, reports without a receipt, the list of releases.

const STORES = ["device", "outbox", "releases"];

/** Open what an earlier visit kept. */
export async function open() {
  const request = indexedDB.open("shoal", 1);
  request.onupgradeneeded = () => {
    for (const name of STORES) request.result.createObjectStore(name);
  };
  return new Kept(await done(request));
}

class Kept {
  #database;

  constructor(database) {
    this.#database = database;
  }

  get(store, key) {
    return done(this.#database.transaction(store).objectStore(store).get(key));
  }

  all(store) {
    return done(this.#database.transaction(store).objectStore(store).getAll());
  }

  /** Write, and return once the bytes are on the disk: the default, "relaxed", ends before they are. */
  put(store, key, value) {
    return this.#change(store, (objects) => objects.put(value, key));
  }

  delete(store, key) {
    return this.#change(store, (objects) => objects.delete(key));
  }

  #change(store, change) {
    const transaction = this.#database.transaction(store, "readwrite", { durability: "strict" });
    change(transaction.objectStore(store));
    return new Promise((resolve, reject) => {
      transaction.oncomplete = () => resolve();
      transaction.onabort = () => reject(transaction.error);
    });
  }
}

function done(request) {
  return new Promise((resolve, reject) => {
    request.onsuccess = () => resolve(request.result);
    request.onerror = () => reject(request.error);
  });
}

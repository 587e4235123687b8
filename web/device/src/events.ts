// What a device tells the app about, typed.

import type { ModelVersion } from "./messages.js";

/** What was sent, or is about to be: everything that leaves the device. */
export interface Release {
  readonly time: number;
  readonly task: string;
  readonly round: number;
  readonly assignment: string;
  readonly what: string;
  readonly bytes: number;
  readonly digest: string;
  /** The Euclidean length of the change. */
  readonly norm: number;
  readonly rows: number;
  /** When the coordinator had it, in seconds since 1970; absent until then. */
  readonly accepted?: number;
  /** Why it was not needed or not taken. */
  readonly refused?: string;
}

export interface DeviceEvents {
  accepted: Release;
  rejected: Release;
  progress: { readonly step: number; readonly loss: number; readonly kind: "round" | "personal" };
  version: ModelVersion;
  error: Error;
  state: string;
}

/** A minimal typed emitter: `on` returns the way to stop listening. */
export class Emitter {
  readonly #target = new EventTarget();

  on<K extends keyof DeviceEvents>(kind: K, hear: (event: DeviceEvents[K]) => void): () => void {
    const listener = (event: Event): void => hear((event as CustomEvent<DeviceEvents[K]>).detail);
    this.#target.addEventListener(kind, listener);
    return () => this.#target.removeEventListener(kind, listener);
  }

  emit<K extends keyof DeviceEvents>(kind: K, event: DeviceEvents[K]): void {
    this.#target.dispatchEvent(new CustomEvent(kind, { detail: event }));
  }
}

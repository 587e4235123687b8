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

/** What the other tabs of a device hear too, and those that are open hear from the service worker. */
const SHARED: readonly (keyof DeviceEvents)[] = ["accepted", "rejected"];

type Sent = { readonly [K in keyof DeviceEvents]: { readonly kind: K; readonly event: DeviceEvents[K] } }[keyof DeviceEvents];

/** A minimal typed emitter: `on` returns the way to stop listening. */
export class Emitter {
  readonly #target = new EventTarget();
  readonly #channel: BroadcastChannel | undefined;

  /** `name` is that of the device's database, where other tabs may have it open; without one nobody else hears. */
  constructor(name?: string) {
    if (name === undefined || typeof indexedDB === "undefined") return;
    this.#channel = new BroadcastChannel(name);
    this.#channel.onmessage = ({ data }: MessageEvent<Sent>) => this.#told(data.kind, data.event);
  }

  on<K extends keyof DeviceEvents>(kind: K, hear: (event: DeviceEvents[K]) => void): () => void {
    const listener = (event: Event): void => hear((event as CustomEvent<DeviceEvents[K]>).detail);
    this.#target.addEventListener(kind, listener);
    return () => this.#target.removeEventListener(kind, listener);
  }

  emit<K extends keyof DeviceEvents>(kind: K, event: DeviceEvents[K]): void {
    this.#told(kind, event);
    if (SHARED.includes(kind)) this.#channel?.postMessage({ kind, event });
  }

  close(): void {
    this.#channel?.close();
  }

  #told<K extends keyof DeviceEvents>(kind: K, event: DeviceEvents[K]): void {
    this.#target.dispatchEvent(new CustomEvent(kind, { detail: event }));
  }
}

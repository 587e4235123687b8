// How a device is set up, and what it tells about itself.

import type { Probe } from "./conditions.js";
import type { ExampleSettings } from "./examples.js";
import type { Kept } from "./kept.js";
import type { RuntimeSettings } from "./runtime.js";

export type Which = "global" | "personal";

/** How a device is set up. */
export interface Joined extends ExampleSettings {
  /** The name of the task that the app's examples are for. */
  readonly task: string;
  /** An enrolment token; a device that joined before needs none. */
  readonly token?: string;
  readonly name?: string;
  /** Where the ONNX runtime lies; in Node an installed onnxruntime-node or onnxruntime-web where it is not given. */
  readonly runtime?: RuntimeSettings;
  /** The address of worker.js; without one the numbers are worked out in this thread. */
  readonly worker?: string | URL;
  /**
   * The address of service.js, so that the app opens without a network. It lies in the page's folder, or is served with
   * a Service-Worker-Allowed header that names that folder, as a coordinator does for its pages.
   */
  readonly service?: string | URL;
  readonly kept?: Kept;
  readonly probe?: Probe;
  /** Nothing is released about fewer examples than this: 10 where it is not given. */
  readonly minimumRows?: number;
  /** Whether metrics over the held-out examples may go into a mean over several devices: true where it is not given. */
  readonly evaluation?: boolean;
  /** Whether they may also where this device is the only one in it. */
  readonly ownMetrics?: boolean;
}

export interface PersonaliseOptions {
  readonly signal?: AbortSignal;
  readonly onStep?: (step: number, loss: number) => void;
  readonly start?: Which;
}

/** What a call of `personalise` did; losses are those on held-out examples, undefined without any. */
export interface Personalised {
  readonly before: number | undefined;
  readonly after: number | undefined;
  readonly kept: boolean;
}

/**
 * Where a device stands. Losses are those on its held-out examples, undefined where there is no such model or example.
 *
 * `version` is the number of the version that is served here; `refused` says why the one that should be is not;
 * `pending` counts updates that have no receipt yet, `released` those that were made; `waitingFor` says which conditions
 * do not hold, `problem` what ended the schedule or keeps it from the coordinator. `persisted` is whether the browser
 * promised not to remove what is kept here when the disk is full.
 */
export interface Status {
  readonly name: string;
  readonly url: string;
  readonly task: string;
  readonly examples: number;
  readonly heldOut: number;
  readonly version: number | undefined;
  readonly runtime: string;
  readonly serving: Which;
  readonly globalLoss: number | undefined;
  readonly personalLoss: number | undefined;
  readonly pending: number;
  readonly released: number;
  readonly running: boolean;
  readonly waitingFor: readonly string[];
  readonly problem: string;
  readonly refused: string;
  readonly persisted: boolean;
}

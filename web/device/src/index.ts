// The public names of @shoal/device.

export type { NdArray } from "./arrays.js";
export { type Conditions, type Probe, type Readings, browserProbe } from "./conditions.js";
export { Device } from "./device.js";
export {
  DataError,
  NotPermitted,
  Refused,
  RuntimeMismatch,
  ShoalError,
  Stopped,
  StorageFull,
  Tampered,
  Unreachable,
  Unsupported,
} from "./errors.js";
export type { DeviceEvents, Release } from "./events.js";
export type { Given, Retention } from "./examples.js";
export type { Kept } from "./kept.js";
export type { RuntimeSettings } from "./runtime.js";
export type { Joined, PersonaliseOptions, Personalised, Status, Which } from "./standing.js";

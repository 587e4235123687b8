// The parts a device is made of, for tests and for whoever builds another device.

export * from "./arrays.js";
export * from "./conditions.js";
export * from "./digests.js";
export * from "./examples.js";
export * from "./golden.js";
export * from "./keys.js";
export * from "./noise.js";
export * from "./plan.js";
export * from "./rates.js";
export * from "./runtime.js";
export * from "./seeds.js";
export * from "./signing.js";
export * from "./training.js";

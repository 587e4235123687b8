// Factors of the learning rate at time t = 0, 1, 2, ...: those of shoal.core.rate, in closed form.

import { Unsupported } from "./errors.js";

export interface Rate {
  readonly kind: string;
  readonly gamma: number;
  readonly period: number;
  readonly floor: number;
}

/** Return the factor at a time. Throws for a kind that is not known here. */
export function factor({ kind, gamma, period, floor }: Rate, time: number): number {
  const progress = Math.min(time, period) / period;
  switch (kind) {
    case "constant":
      return 1;
    case "exponential":
      return gamma ** time;
    case "step":
      return gamma ** Math.floor(time / period);
    case "cosine":
      return floor + ((1 - floor) * (1 + Math.cos(Math.PI * progress))) / 2;
    case "warmup":
      return floor + (1 - floor) * progress;
    default:
      throw new Unsupported(`a learning-rate schedule of kind ${kind}`, "update this app");
  }
}

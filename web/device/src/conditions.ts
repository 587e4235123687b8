// When a device may work: judged on the device, from what its system tells. Nothing of it is sent anywhere.

/** What a device can tell about itself; undefined where it cannot. `battery` is the charge from 0 to 1. */
export interface Readings {
  readonly charging?: boolean | undefined;
  readonly battery?: number | undefined;
  readonly unmetered?: boolean | undefined;
  readonly visible?: boolean | undefined;
}

export type Probe = () => Promise<Readings>;

/** What must hold for a device to work on its schedule, all of the time. What it cannot tell does not hold. */
export interface Conditions {
  readonly minExamples?: number;
  readonly charging?: boolean;
  readonly unmetered?: boolean;
  readonly battery?: number;
  readonly visible?: boolean;
}

/** Return what does not hold, in words; nothing when the device may work. */
export function unmet(conditions: Conditions, readings: Readings, examples: number): string[] {
  const { minExamples = 1, battery = 0 } = conditions;
  const words: string[] = [];
  if (examples < minExamples) words.push(`${examples} examples of ${minExamples}`);
  for (const name of ["charging", "unmetered", "visible"] as const) {
    if (conditions[name] && !readings[name]) {
      words.push(readings[name] === false ? `not ${name}` : `cannot tell whether ${name}`);
    }
  }
  if (battery > (readings.battery ?? 0)) words.push(`${charge(readings.battery)}, below ${percent(battery)}`);
  return words;
}

function charge(battery: number | undefined): string {
  return battery === undefined ? "an unknown charge" : `a charge of ${percent(battery)}`;
}

function percent(share: number): string {
  return `${Math.round(share * 100)}%`;
}

interface Battery {
  readonly charging: boolean;
  readonly level: number;
}

interface Connection {
  readonly type?: string;
  readonly saveData?: boolean;
}

interface Telling {
  getBattery?(): Promise<Battery>;
  readonly connection?: Connection;
}

const PAID = ["cellular", "wimax"];

/** Read what a browser tells: Battery Status and Network Information where they exist, Page Visibility everywhere. */
export const browserProbe: Probe = async () => {
  const teller = navigator as unknown as Telling;
  const power = await teller.getBattery?.();
  return {
    charging: power?.charging,
    battery: power?.level,
    unmetered: unmetered(teller.connection),
    visible: typeof document === "undefined" ? undefined : document.visibilityState === "visible",
  };
};

function unmetered(connection: Connection | undefined): boolean | undefined {
  if (connection?.saveData) return false;
  return connection?.type === undefined ? undefined : !PAID.includes(connection.type);
}

// Who a device is: its name, its key, its id at the coordinator, and the coordinator's key.

import { Connection } from "./connection.js";
import { Refused, ShoalError } from "./errors.js";
import { type DeviceKey, type PackedKey, newKey, packed, unpacked } from "./keys.js";
import type { Kept } from "./kept.js";

const RECORD = "identity";

interface Record {
  readonly name: string;
  readonly key: PackedKey;
  readonly url: string;
  readonly device?: string;
  readonly coordinatorKey?: string;
  /** Set when it began to leave: nothing but the key is here then. */
  readonly leaving?: true;
}

/** A device that the coordinator knows. */
export interface Identity {
  readonly name: string;
  readonly key: DeviceKey;
  readonly device: string;
  readonly coordinatorKey: string;
}

/** What somebody who joins for the first time gives. */
export interface Joining {
  readonly url: string;
  readonly token?: string | undefined;
  readonly name?: string | undefined;
  readonly clock: () => number;
}

/** Return who this device is, enrolling it the first time; a device that joined before needs no network for it. */
export async function identified(kept: Kept, joining: Joining): Promise<Identity> {
  await left(kept, joining.clock); // a leave that was interrupted
  const { record, key } = await known(kept, joining);
  if (joining.name !== undefined && record.name !== joining.name) {
    throw new ShoalError("conflict", `this device is ${record.name}, not ${joining.name}`, "leave() first, or give no name");
  }
  const { name, device, coordinatorKey } = record;
  if (device !== undefined && record.url !== joining.url) {
    throw new ShoalError("conflict", `this device belongs to ${record.url}, not to ${joining.url}`, "leave() there first");
  }
  if (device !== undefined && coordinatorKey !== undefined) return { name, key, device, coordinatorKey };
  const connection = new Connection(joining.url, key, joining.clock);
  const reply = await connection.enrol(name, joining.token);
  const pinned = await connection.key();
  await kept.put("device", RECORD, { ...record, url: joining.url, device: reply.device, coordinatorKey: pinned });
  return { name, key, device: reply.device, coordinatorKey: pinned };
}

/** Return a device that joined before, and the address of its coordinator. */
export async function enrolled(kept: Kept): Promise<{ readonly url: string; readonly identity: Identity } | undefined> {
  const found = await kept.get<Record>("device", RECORD);
  if (found?.device === undefined || found.coordinatorKey === undefined) return undefined;
  const { name, device, coordinatorKey, url } = found;
  return { url, identity: { name, device, coordinatorKey, key: await unpacked(found.key) } };
}

/** Leave for good: the user's data goes first, then the coordinator is told, then the key goes. Throws Unreachable. */
export async function leave(kept: Kept, clock: () => number): Promise<void> {
  const record = await kept.get<Record>("device", RECORD);
  if (record !== undefined) await kept.wipe([{ store: "device", key: RECORD, value: { ...record, leaving: true } }]);
  await left(kept, clock);
}

async function left(kept: Kept, clock: () => number): Promise<void> {
  const record = await kept.get<Record>("device", RECORD);
  if (record?.leaving === undefined) return;
  if (record.device !== undefined) {
    await new Connection(record.url, await unpacked(record.key), clock).leave().catch((error: unknown) => {
      if (!(error instanceof Refused && error.status === 401)) throw error; // it knows us no more: what was wanted
    });
  }
  await kept.wipe([]);
}

async function known(kept: Kept, { name, url }: Joining): Promise<{ record: Record; key: DeviceKey }> {
  const found = await kept.get<Record>("device", RECORD);
  if (found !== undefined) return { record: found, key: await unpacked(found.key) };
  const key = await newKey(!kept.keepsKeys);
  const drawn = `device-${Array.from(crypto.getRandomValues(new Uint8Array(6)), (b) => b.toString(16).padStart(2, "0")).join("")}`;
  const record = { name: name ?? drawn, key: await packed(key, kept.keepsKeys), url };
  await kept.put("device", RECORD, record); // durable before it is shown to anyone
  return { record, key };
}

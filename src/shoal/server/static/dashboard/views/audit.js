// What people did, over all tasks and devices, newest first.

import { at, get } from "../api.js";
import { h } from "../dom.js";
import { moment } from "../format.js";
import { empty, table } from "../parts.js";

const DID = {
  Published: () => "published",
  Cancelled: (e) => `cancelled: ${e.reason}`,
  Paused: () => "paused",
  Resumed: () => "resumed",
  Extended: (e) => `extended to ${e.rounds} rounds`,
  Promoted: (e) => `version ${e.number} promoted ${e.reason && `(${e.reason})`}`,
  RolledBack: (e) => `version ${e.number} rolled back to ${e.to} ${e.reason && `(${e.reason})`}`,
  CanaryBegan: (e) => `version ${e.number} on trial`,
  Rewound: (e) => `rounds go on from version ${e.number} ${e.reason && `(${e.reason})`}`,
  Noted: (e) => `noted about version ${e.number}: ${e.text}`,
  Rejected: (e) => `an update of ${e.device} refused: ${e.reason}`,
  Unfit: (e) => `version ${e.number} does not work on ${e.device}: ${e.reason}`,
};

export function audit({ draw }) {
  const logs = new Map();
  const lengths = new Map();
  let devices = [];
  get("/v1/devices").then((found) => ((devices = found), draw()), () => {});
  const read = async (id) => {
    const page = await get(at(id, "/log")).catch(() => null);
    if (page === null) return;
    const known = new Map((logs.get(id) ?? []).map((entry) => [entry.position, entry]));
    for (const entry of page.entries) known.set(entry.position, entry);
    // the first event says who published, however many came after it
    if (!known.has(1)) for (const entry of (await get(at(id, "/log?before=2")).catch(() => ({ entries: [] }))).entries) known.set(entry.position, entry);
    logs.set(id, [...known.values()]);
    draw();
  };
  return {
    title: () => "Audit",
    draw(state) {
      for (const task of state.tasks.values()) {
        const mark = `${task.phase}.${task.round}.${task.rounds}.${task.serving}.${task.candidate}`;
        if (lengths.get(task.id) !== mark) {
          lengths.set(task.id, mark);
          read(task.id);
        }
      }
      const rows = [
        ...[...logs].flatMap(([id, entries]) => entries.filter((e) => e.kind in DID).map((e) => [e.at, id, e.event.by ?? "", DID[e.kind](e.event)])),
        ...devices.filter((d) => d.enrolled).map((d) => [d.enrolled, d.name, "", "device enrolled"]),
        ...devices.filter((d) => d.revoked).map((d) => [d.revoked, d.name, "", "device revoked"]),
      ].sort((a, b) => b[0] - a[0]);
      if (rows.length === 0) return [h("h1", {}, "Audit"), empty("Nothing happened yet", "What people do with tasks, versions and devices is listed here.", "shoal publish task.py:task --rounds 20 --owners 2")];
      return [
        h("h1", {}, "Audit"),
        h("p", { class: "quiet" }, "What people did, and what was refused. Each task's own log has every event."),
        table("Audit, newest first", ["When", "Task or device", "By", "What"], rows.slice(0, 500).map(([when, ...others]) => [moment(when), ...others])),
      ];
    },
  };
}

// The events of one task, as they stand in its stream: the truth from which everything else is made.

import { at, get } from "../api.js";
import { h } from "../dom.js";
import { moment } from "../format.js";
import { empty, table } from "../parts.js";

const QUIET = ["Renewed", "CheckedIn", "Ticked"];
const PEOPLE = ["Published", "Cancelled", "Paused", "Resumed", "Extended", "Promoted", "RolledBack", "CanaryBegan", "Rewound", "Noted"];

export function log({ id, draw }) {
  let entries = [];
  let before = 0;
  let rest = true;
  let only = false;
  const older = async () => {
    const page = await get(at(id, `/log?before=${before}`)).catch(() => null);
    if (page === null) return;
    entries = [...entries, ...page.entries];
    before = entries.at(-1)?.position ?? 1;
    rest = before > 1;
    draw();
  };
  older();
  return {
    draw() {
      const shown = entries.filter((entry) => (only ? PEOPLE.includes(entry.kind) : !QUIET.includes(entry.kind)));
      return [
        h("div", { class: "row" }, h("label", {}, h("input", { type: "checkbox", checked: only, onchange: (event) => ((only = event.target.checked), draw()) }), " only what people did")),
        shown.length === 0
          ? empty("Nothing here", rest ? "Older events may have it." : "No such event in this task.")
          : table("Events, newest first", ["#Number", "When", "Event", "Device or person", "Details"], shown.map(row)),
        rest && h("button", { onclick: older }, "Older"),
      ];
    },
  };
}

function row({ position, at: when, kind, event }) {
  const { device = "", by = "", assignment, origin, costs, digest, ...others } = event;
  const details = Object.entries(others).map(([name, value]) => `${name} ${typeof value === "object" ? JSON.stringify(value) : value}`);
  if (digest) details.unshift(`digest ${digest.slice(0, 12)}`);
  return [position, moment(when), kind, device || by, details.join(", ")];
}

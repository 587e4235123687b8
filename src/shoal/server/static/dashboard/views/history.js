// What happened in each round.

import { at, get } from "../api.js";
import { h } from "../dom.js";
import { bytes, moment, seconds } from "../format.js";
import { badge, table } from "../parts.js";

export function history({ id, draw }) {
  let records = null;
  let seen = "";
  return {
    draw(view) {
      const now = `${view.round}.${view.attempt}.${view.phase}`;
      if (now !== seen) {
        seen = now;
        get(at(id, "/rounds")).then((found) => {
          records = found.reverse();
          draw();
        }, () => (seen = ""));
      }
      if (records === null) return h("p", { class: "quiet" }, "Loading…");
      return table(
        "What happened in each round",
        ["#Round", "Outcome", "#Selected", "#Reported", "#Carried", "#Late", "Dropped", "Refused", "#Up", "#Down", "#Selecting", "#Collecting", "#Committing", "Since"],
        records.map((r) => [
          r.attempt > 1 ? `${r.round} (${r.attempt})` : r.round,
          [badge(r.outcome), " ", r.reason],
          r.selected,
          r.reported,
          r.carried,
          r.late,
          reasons(r.dropped),
          reasons(r.refused),
          bytes(r.bytes_up),
          bytes(r.bytes_down),
          seconds(r.selecting),
          seconds(r.collecting),
          seconds(r.committing),
          moment(r.since),
        ]),
      );
    },
  };
}

const reasons = (counted) => Object.entries(counted).map(([reason, count]) => `${count}: ${reason}`).join("; ") || "0";

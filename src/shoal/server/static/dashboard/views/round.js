// The round as it happens.

import { at, get } from "../api.js";
import { Chart } from "../chart.js";
import { h } from "../dom.js";
import { bytes, number, plural, seconds } from "../format.js";
import { badge, bar, empty, fact, facts, table } from "../parts.js";

const WORDS = { offered: "training", accepted: "reported", expired: "lease ran out", released: "gave its place back", rejected: "refused", late: "late" };

export function round({ id, draw }) {
  const chart = new Chart();
  const versions = [];
  let asked = -1;
  const more = async (newest) => {
    asked = newest;
    const after = versions.length === 0 ? -1 : versions.at(-1).number;
    const answer = await get(at(id, `/versions?after=${after}`)).catch(() => null);
    if (answer === null) return void (asked = -1);
    for (const version of answer.versions) if (version.number > (versions.at(-1)?.number ?? -1)) versions.push(version);
    draw();
  };
  const plot = () => {
    const element = document.getElementById("metrics");
    const measured = versions.filter((version) => Object.keys(version.metrics).length > 0);
    if (element === null || measured.length === 0) return;
    const names = [...new Set(measured.flatMap((version) => Object.keys(version.metrics)))].sort((a, b) => (b === "loss") - (a === "loss"));
    chart.show(element, measured.map((version) => version.number), Object.fromEntries(names.map((name) => [name, measured.map((version) => version.metrics[name] ?? null)])));
  };
  return {
    close: () => chart.close(),
    draw(view, now) {
      if (view.latest.number !== asked) more(view.latest.number);
      requestAnimationFrame(plot);
      const { latest } = view;
      return [
        happening(view, now),
        h("h2", {}, "Over versions"),
        latest.number === 0
          ? h("p", { class: "quiet" }, "The first version comes with the first round.")
          : h("p", { class: "quiet" }, `Version ${latest.number}: `, Object.entries(latest.metrics).map(([name, value]) => `${name} ${number(value)}`).join(", ") || "nothing measured", `, from ${plural(latest.reports, "update")}`),
        h("div", { id: "metrics", kept: true, role: "img", "aria-label": `Metrics of ${id} over its versions` }),
      ];
    },
  };
}

function happening(view, now) {
  const record = view.record;
  const count = (...states) => states.reduce((sum, state) => sum + (view.states[state] ?? 0), 0);
  const over = ["finished", "failed", "cancelled"].includes(view.phase);
  if (over) return h("section", {}, h("h2", {}, "The last round"), people(view));
  const waits = view.phase === "collecting" && record.selected === 0;
  return h(
    "section",
    { "aria-label": "The round in progress" },
    h("h2", {}, view.buffered ? `Buffer for version ${view.round}` : `Round ${view.round} of ${view.rounds}`, view.attempt > 1 && h("small", {}, ` attempt ${view.attempt}`)),
    bar(view.reports / view.goal, "Updates that count"),
    facts(
      fact("Selected", record.selected, `of ${plural(record.places, "place")}`),
      fact("Training", count("offered")),
      fact("Reported", view.reports, `goal ${view.goal}`),
      fact("Late", record.late),
      fact("Dropped", sum(record.dropped)),
      fact("Refused", sum(record.refused)),
      fact("Time left", view.phase === "paused" ? "resting" : view.deadline === null ? "–" : seconds(view.deadline - now), view.deadline === null ? "counts from the first device" : null),
      fact("Updates", bytes(record.update_bytes)),
    ),
    waits && now < view.opens && h("p", { class: "quiet" }, `The round opens in ${seconds(view.opens - now)}.`),
    waits && now >= view.opens && empty("No device has come yet", "Start one where the rows are:", `shoal agent --name bob --code task.py --data bob.csv`),
    people(view),
  );
}

const sum = (reasons) => Object.values(reasons).reduce((total, count) => total + count, 0);

function people(view) {
  const why = Object.entries({ ...view.record.dropped, ...view.record.refused });
  const total = Object.values(view.states).reduce((all, count) => all + count, 0);
  return [
    why.length > 0 && table("Why devices did not report", ["#Devices", "Why"], why.map(([reason, count]) => [count, reason])),
    view.parts.length > 0 &&
      table(
        total > view.parts.length ? `${view.parts.length} of ${total} devices of this round` : "Devices of this round",
        ["Device", "State", "Why"],
        view.parts.map((part) => [part.device, badge(part.state, WORDS[part.state] ?? part.state), part.reason]),
        { caption: true },
      ),
  ];
}

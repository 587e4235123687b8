// Versions: lineage, which one is served, and two of them side by side.

import { arrays, at, call, get } from "../api.js";
import { h } from "../dom.js";
import { moment, number, short } from "../format.js";
import { badge, sure, table } from "../parts.js";

export function versions({ id, draw, act, may }) {
  let records = null;
  let seen = "";
  let picked = [];
  let apart = null;
  const load = () => get(at(id, "/models")).then((found) => ((records = found.reverse()), draw()), () => (seen = ""));
  const change = (path, body, done) => act(() => call("POST", at(id, path), body), done).then(load);
  const pick = (number) => {
    picked = picked.includes(number) ? picked.filter((n) => n !== number) : [...picked, number].slice(-2);
    apart = null;
    draw();
  };
  return {
    draw(view) {
      const now = `${view.latest.number}.${view.serving}.${view.candidate}`;
      if (now !== seen) {
        seen = now;
        load();
      }
      if (records === null) return h("p", { class: "quiet" }, "Loading…");
      const names = [...new Set(records.flatMap((r) => Object.keys(r.version.metrics)))];
      const two = picked.map((n) => records.find((r) => r.version.number === n)).filter(Boolean).sort((a, b) => a.version.number - b.version.number);
      return [
        two.length === 2 ? compared(two, names, apart, () => act(async () => (apart = await difference(two)))) : h("p", { class: "quiet" }, "Tick two versions to compare them."),
        table(
          "Versions, newest first",
          ["Compare", "#Version", "From", "Digest", ...names.map((name) => `#${name}`), "#Updates", "Made", "Standing", may ? "Do" : "Notes"],
          records.map((r) => {
            const n = r.version.number;
            return [
              h("input", { type: "checkbox", checked: picked.includes(n), "aria-label": `Compare version ${n}`, onchange: () => pick(n) }),
              n,
              r.parent === null || r.parent === undefined ? "the beginning" : `version ${r.parent}`,
              h("code", { title: r.version.digest }, short(r.version.digest)),
              ...names.map((name) => number(r.version.metrics[name])),
              r.version.reports,
              moment(r.version.created),
              r.standing ? badge(r.standing) : "",
              [may && actions(r, view, change), r.notes?.map((note) => h("p", { class: "quiet" }, note.text))],
            ];
          }),
        ),
      ];
    },
  };
}

function actions(record, view, change) {
  const n = record.version.number;
  if (record.standing === "served") {
    return h("button", { onclick: async () => (await sure(`Roll back version ${n}? Devices go back to the one before.`, "Roll back")) && change("/rollback", { reason: "on the dashboard" }, `version ${n} is served no more`) }, "Roll back…");
  }
  if (record.standing === "candidate") {
    return h("button", { onclick: () => change("/rollback", { reason: "on the dashboard" }, `version ${n} is no candidate any more`) }, "End its trial");
  }
  return h("button", { onclick: async () => (await sure(`Let all devices of ${view.id} serve version ${n}?`, "Promote")) && change("/promote", { number: n, reason: "on the dashboard" }, `version ${n} is served`) }, "Promote…");
}

async function difference(two) {
  const [one, other] = await Promise.all(two.map((r) => arrays(r.version.digest)));
  return [...other].map(([name, { values }]) => {
    const before = one.get(name)?.values;
    let moved = 0;
    let length = 0;
    for (let i = 0; i < values.length; i += 1) {
      moved += before ? (values[i] - before[i]) ** 2 : values[i] ** 2;
      length += values[i] ** 2;
    }
    return [name, Math.sqrt(moved), Math.sqrt(length)];
  });
}

function compared([one, other], names, apart, measure) {
  const [a, b] = [one.version, other.version];
  return h(
    "section",
    { class: "card", "aria-label": "Two versions compared" },
    h("h2", {}, `Version ${a.number} and version ${b.number}`),
    table("Metrics of two versions", ["Metric", `#Version ${a.number}`, `#Version ${b.number}`, "#Change"], names.map((name) => [name, number(a.metrics[name]), number(b.metrics[name]), number(b.metrics[name] - a.metrics[name])])),
    apart === null
      ? h("button", { onclick: measure }, "Compare their arrays")
      : table("Arrays of two versions", ["Array", "#Norm of the change", "#Norm"], apart.map(([name, moved, length]) => [h("code", {}, name), number(moved), number(length)])),
  );
}

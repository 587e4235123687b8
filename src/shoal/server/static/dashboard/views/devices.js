// Devices. However many there are, only the rows that are seen are elements.

import { call, get } from "../api.js";
import { h, render } from "../dom.js";
import { ago, bytes, plural } from "../format.js";
import { badge, empty, sure } from "../parts.js";

const ROW = 44;
const EVERY = 5000;
const HEADS = ["Device", "State", "Last seen", "Runtime", "Success", "Up", "Down", "Do"];

export function devices({ draw, act, may }) {
  let all = null;
  let wanted = "";
  let state = "";
  const load = () => get("/v1/devices").then((found) => ((all = found), draw()), () => {});
  load();
  const timer = setInterval(() => document.hidden || load(), EVERY);
  const tell = (device, verb, done) => act(() => call("POST", `/v1/devices/${encodeURIComponent(device.name)}/${verb}`, verb === "approve" ? { id: device.id } : undefined), done).then(load);
  return {
    title: () => "Devices",
    close: () => clearInterval(timer),
    draw(_, now) {
      if (all === null) return [h("h1", {}, "Devices"), h("p", { class: "quiet" }, "Loading…")];
      if (all.length === 0) return [h("h1", {}, "Devices"), empty("No device yet", "With the enrolment token of the coordinator's first start:", "shoal agent --name bob --code task.py --data bob.csv")];
      const shown = all.filter((device) => (state === "" || device.state === state) && device.name.toLowerCase().includes(wanted));
      const states = [...new Set(all.map((device) => device.state))];
      requestAnimationFrame(() => window_(shown, now, may("devices") ? tell : null));
      return [
        h("h1", {}, "Devices"),
        h(
          "div",
          { class: "row" },
          h("label", {}, "Name ", h("input", { type: "search", value: wanted, oninput: (event) => ((wanted = event.target.value.toLowerCase()), draw()) })),
          h("label", {}, "State ", h("select", { onchange: (event) => ((state = event.target.value), draw()) }, h("option", { value: "" }, "all"), states.map((name) => h("option", { value: name }, name)))),
          h("span", { class: "quiet", role: "status" }, `${shown.length.toLocaleString("en")} of ${plural(all.length, "device")}`),
        ),
        h("p", { class: "quiet" }, "Parts and bytes are counted since the coordinator started."),
        h("div", { id: "devices", class: "virtual", role: "table", "aria-label": "Devices", "aria-rowcount": shown.length + 1, tabindex: "0", kept: true, onscroll: () => window_(shown, now, may("devices") ? tell : null) }),
      ];
    },
  };
}

function window_(shown, now, tell) {
  const element = document.getElementById("devices");
  if (element === null) return;
  const first = Math.max(0, Math.floor(element.scrollTop / ROW) - 5);
  const last = Math.min(shown.length, first + Math.ceil(element.clientHeight / ROW) + 12);
  render(
    element,
    h("div", { class: "line head", role: "row", "aria-rowindex": 1 }, HEADS.map((head) => h("span", { role: "columnheader" }, head))),
    h(
      "div",
      { role: "rowgroup", class: "all", style: { height: `${shown.length * ROW}px` } },
      shown.slice(first, last).map((device, index) => line(device, first + index, now, tell)),
    ),
  );
}

function line(device, index, now, tell) {
  const cell = (...children) => h("span", { role: "cell" }, children);
  return h(
    "div",
    { class: "line", role: "row", key: device.id, "aria-rowindex": index + 2, style: { transform: `translateY(${index * ROW}px)` } },
    cell(h("b", { title: device.id }, device.name)),
    cell(badge(device.state)),
    cell(ago(device.last_seen, now)),
    cell(device.runtime || "–"),
    cell(device.assigned ? `${device.accepted} of ${device.assigned}` : "–", device.refused > 0 && h("small", {}, ` ${device.refused} refused`)),
    cell(bytes(device.bytes_up)),
    cell(bytes(device.bytes_down)),
    cell(tell && buttons(device, tell)),
  );
}

function buttons(device, tell) {
  if (device.state === "pending") {
    return [
      h("button", { onclick: () => tell(device, "approve", `${device.name} may join`) }, "Approve"),
      h("button", { onclick: () => tell(device, "refuse", `${device.name} was turned away`) }, "Refuse"),
    ];
  }
  if (device.state !== "enrolled") return null;
  return h("button", { class: "danger", onclick: async () => (await sure(`Revoke ${device.name}? It takes part no more, at once.`, "Revoke")) && tell(device, "revoke", `${device.name} is revoked`) }, "Revoke…");
}

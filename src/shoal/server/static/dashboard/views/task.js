// One task: the round as it happens, its versions, its rounds so far, what leaves a device, and its log.

import { at, call, get } from "../api.js";
import { h } from "../dom.js";
import { badge, empty, sure } from "../parts.js";
import { log } from "./log.js";
import { history } from "./history.js";
import { leaves } from "./leaves.js";
import { round } from "./round.js";
import { versions } from "./versions.js";

const TABS = { "": ["Round", round], versions: ["Versions", versions], rounds: ["Rounds", history], leaves: ["What leaves a device", leaves], log: ["Log", log] };
const OVER = ["finished", "failed", "cancelled"];

export function task({ rest: [id, tab = ""], draw, act, may }) {
  const [, make] = TABS[tab] ?? TABS[""];
  const inner = make({ id, draw, act, may: may("tasks") });
  return {
    title: () => id,
    close: () => inner.close?.(),
    draw(state, now) {
      const view = state.tasks.get(id);
      if (view === undefined) return empty(`No task ${id}`, "It may have another number. List all:", "shoal tasks");
      return [
        h("p", { class: "crumbs" }, h("a", { href: "#/" }, "Tasks")),
        h("h1", {}, id, " ", badge(view.phase)),
        view.reason && h("p", { class: "quiet" }, view.reason),
        may("tasks") && h("div", { class: "row" }, controls(view, act)),
        h(
          "nav",
          { class: "tabs", "aria-label": "Of this task" },
          Object.entries(TABS).map(([name, [text]]) =>
            h("a", { href: `#/tasks/${encodeURIComponent(id)}${name && `/${name}`}`, "aria-current": name === tab ? "page" : null }, text),
          ),
        ),
        inner.draw(view, now, state),
      ];
    },
  };
}

function controls(view, act) {
  const id = view.id;
  const tell = (verb, body, done) => () => act(() => call("POST", at(id, `/${verb}`), body), done);
  if (view.phase === "failed" || view.phase === "cancelled") return [again(view, act)];
  const extend = extending(view, act);
  if (view.phase === "finished") return [extend, again(view, act)];
  return [
    view.phase === "paused"
      ? h("button", { key: "resume", onclick: tell("resume", undefined, `${id} goes on`) }, "Resume")
      : h("button", { key: "pause", onclick: tell("pause", undefined, `${id} rests; work under way may still be reported`) }, "Pause"),
    extend,
    h(
      "button",
      {
        key: "cancel",
        class: "danger",
        onclick: async () => {
          if (await sure(`Cancel ${id}? Its versions stay, it makes no more.`, "Cancel the task")) {
            await act(() => call("POST", at(id, "/cancel"), { reason: "cancelled on the dashboard" }), `${id} is cancelled`);
          }
        },
      },
      "Cancel…",
    ),
  ];
}

function extending(view, act) {
  if (view.kind !== "training") return null;
  return h(
    "form",
    {
      class: "row",
      key: "extend",
      onsubmit: (event) => {
        event.preventDefault();
        const field = event.target.querySelector("input");
        const rounds = Number(field.value);
        act(() => call("POST", at(view.id, "/extend"), { rounds }), `${view.id} has ${rounds} rounds now`).then(() => (field.value = ""));
      },
    },
    h("label", {}, "Rounds in all ", h("input", { type: "number", min: view.rounds + 1, required: true, placeholder: String(view.rounds), class: "small" })),
    h("button", {}, "Extend"),
  );
}

function again(view, act) {
  return h(
    "button",
    {
      key: "again",
      onclick: () =>
        act(async () => {
          const spec = await get(at(view.id));
          const made = await call("POST", "/v1/tasks", spec);
          location.hash = `#/tasks/${encodeURIComponent(made.id)}`;
        }, "started again, from its first version"),
    },
    OVER.includes(view.phase) ? "Start again" : "Start",
  );
}

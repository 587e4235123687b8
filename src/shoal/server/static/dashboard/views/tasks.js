// Every task, the newest first.

import { h } from "../dom.js";
import { number, plural, seconds } from "../format.js";
import { badge, bar, empty } from "../parts.js";

const OVER = ["finished", "failed", "cancelled"];

export function tasks() {
  return {
    title: () => "Tasks",
    draw(state, now) {
      const all = [...state.tasks.values()].sort((a, b) => b.published - a.published);
      const running = all.filter((task) => !OVER.includes(task.phase));
      const over = all.filter((task) => OVER.includes(task.phase));
      if (all.length === 0) {
        return [h("h1", {}, "Tasks"), empty("No task yet", "Publish one from the machine that has its code:", "shoal publish task.py:task --rounds 20 --owners 2")];
      }
      return [
        h("h1", {}, "Tasks"),
        h("p", { class: "quiet" }, `${plural(running.length, "task")} running, ${over.length} over`),
        h("ul", { class: "cards" }, running.map((task) => card(task, now)), over.map((task) => card(task, now))),
      ];
    },
  };
}

function card(task, now) {
  const over = OVER.includes(task.phase);
  const loss = task.latest.metrics.loss;
  return h(
    "li",
    { class: "card", key: task.id },
    h("h2", {}, h("a", { href: `#/tasks/${encodeURIComponent(task.id)}` }, task.id), " ", badge(task.phase)),
    h(
      "p",
      { class: "quiet" },
      task.kind === "training" ? "" : `${task.kind} · `,
      over ? `version ${task.latest.number}` : `round ${task.round} of ${task.rounds}`,
      loss === undefined ? "" : ` · loss ${number(loss)}`,
      task.deadline !== null && !over && task.phase !== "paused" ? ` · ${seconds(task.deadline - now)} left` : "",
    ),
    over
      ? task.reason && h("p", {}, task.reason)
      : bar(task.reports / task.goal, `Updates of round ${task.round} of ${task.id}`),
    !over && h("p", { class: "quiet" }, `${task.reports} of ${task.goal} updates`),
  );
}

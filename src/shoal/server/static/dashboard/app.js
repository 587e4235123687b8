// The page: who is signed in, which view is open, and the views drawn anew at each frame of the stream.

import { call, get } from "./api.js";
import { h, render, say } from "./dom.js";
import { follow } from "./live.js";
import { audit } from "./views/audit.js";
import { devices } from "./views/devices.js";
import { signIn } from "./views/signin.js";
import { task } from "./views/task.js";
import { tasks } from "./views/tasks.js";

const VIEWS = { "": tasks, tasks: task, devices, audit };
const NAV = [["#/", "Tasks"], ["#/devices", "Devices"], ["#/audit", "Audit"]];
const CHANGES = { admin: ["tasks", "devices"], researcher: ["tasks"], owner: ["devices"], viewer: [] };

const main = document.getElementById("main");
let state = null;
let view = null;
let unfollow = () => {};

/** Where the address says that we are: ["tasks", "boston-1", "versions"]. */
const place = () => location.hash.replace(/^#\/?/, "").split("/").filter(Boolean).map(decodeURIComponent);

function open() {
  view?.close?.();
  const [name = "", ...rest] = place();
  view = (VIEWS[name] ?? tasks)({ rest, draw, act, may: (what) => CHANGES[state?.role]?.includes(what) ?? false });
  render(main);
  main.scrollTop = 0;
  draw();
}

function draw() {
  if (state === null) return;
  const here = place()[0] ?? "";
  render(
    document.getElementById("nav"),
    NAV.map(([href, text]) => h("a", { href, "aria-current": href === `#/${here === "tasks" ? "" : here}` ? "page" : null }, text)),
  );
  render(
    document.getElementById("session"),
    h("span", { class: state.connected ? "live on" : "live off" }, state.connected ? "live" : "reconnecting…"),
    h("span", { class: "quiet role" }, state.role),
    h("button", { onclick: leave }, "Sign out"),
  );
  render(main, view.draw(state, Date.now() / 1000 + state.ahead));
  document.title = `${view.title?.() ?? "Shoal"} – Shoal`;
}

/** Do what a person asked for; say how it went. */
async function act(doing, done) {
  try {
    const result = await doing();
    if (done) say(done);
    return result;
  } catch (error) {
    if (error.status === 401) enter(error.message);
    else say(error.message, true);
    return undefined;
  } finally {
    if (state !== null) draw();
  }
}

async function leave() {
  await call("DELETE", "/v1/session").catch(() => {});
  enter();
}

function enter(why) {
  unfollow();
  view?.close?.();
  state = view = null;
  render(document.getElementById("nav"));
  render(document.getElementById("session"));
  document.title = "Sign in – Shoal";
  render(main);
  signIn(main, begin, why);
}

async function begin() {
  render(main);
  unfollow = follow((heard) => {
    const first = state === null;
    state = heard;
    if (first) open();
    else draw();
  }, enter);
}

addEventListener("hashchange", () => {
  if (state === null) return;
  open();
  main.focus();
});

get("/v1/session").then(begin, (error) => enter(error.status === 401 ? "" : error.message));

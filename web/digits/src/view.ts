// What stands on the page: the only place that touches its elements.

import type { Release } from "@shoal/device";

import type { Drawing, Guess, Guesses } from "./learner.js";

const COUNT = 10;

function found<T extends HTMLElement>(id: string): T {
  return document.getElementById(id) as T;
}

export const pad = found<HTMLCanvasElement>("pad");
const [clear, sharingSwitch, leave] = ["clear", "sharing", "leave"].map((id) => found<HTMLButtonElement>(id)) as [
  HTMLButtonElement,
  HTMLButtonElement,
  HTMLButtonElement,
];
const answers = found<HTMLFieldSetElement>("answers");
const buttons = Array.from({ length: COUNT }, (_, digit) => answer(digit));

let ready_ = false;

function answer(digit: number): HTMLButtonElement {
  const button = document.createElement("button");
  button.type = "button";
  const [bar, name] = ["bar", "name"].map((kind) => Object.assign(document.createElement("span"), { className: kind }));
  name!.textContent = String(digit);
  button.append(bar!, name!);
  found("digits").append(button);
  return button;
}

export function onAnswer(heard: (digit: number) => void): void {
  buttons.forEach((button, digit) => button.addEventListener("click", () => heard(digit)));
}

export function onClear(heard: () => void): void {
  clear.addEventListener("click", () => {
    heard();
    pad.focus();
  });
}

export function onSharing(heard: (on: boolean) => void): void {
  sharingSwitch.disabled = false;
  sharingSwitch.addEventListener("click", () => heard(sharingSwitch.getAttribute("aria-checked") !== "true"));
}

/** Call `heard` when the button is pressed twice: the first press asks. */
export function onLeave(heard: () => void): void {
  const text = leave.textContent;
  leave.disabled = false;
  leave.addEventListener("click", () => {
    if (leave.dataset["sure"] === "yes") return heard();
    leave.dataset["sure"] = "yes";
    leave.textContent = "Press again to delete it all";
    setTimeout(() => {
      delete leave.dataset["sure"];
      leave.textContent = text;
    }, 4000);
  });
}

export function say(what: string): void {
  found("said").textContent = what;
}

export function ready(device: string, drawings: readonly Drawing[]): void {
  ready_ = true;
  say("Draw a digit, and see whether it is known.");
  found("device").textContent = `This is ${device} at ${location.host}.`;
  showDrawings(drawings);
}

/** Say what went wrong, and what to do. */
export function failed(error: Error): void {
  const notice = found("notice");
  notice.textContent = error.message;
  notice.hidden = false;
  if (!ready_) say("Not ready.");
}

export function version(number: number, isNew: boolean): void {
  found("version").textContent = `version ${number}`;
  if (isNew) state(number === 0 ? "everyone starts from version 0" : `version ${number} is here, made on several devices`);
}

export function drawing(there: boolean): void {
  found("hint").hidden = there;
  clear.disabled = !there;
  answers.disabled = !there || !ready_;
}

export function noGuess(): void {
  for (const id of ["mine", "everyone"]) {
    found(id).textContent = "?";
    found(`${id}-share`).textContent = "\u00a0";
  }
  buttons.forEach((button) => bar(button, 0, false));
  say("Draw a digit, and see whether it is known.");
}

export function guessed({ device, everyone }: Guesses): void {
  one("mine", device);
  one("everyone", everyone);
  buttons.forEach((button, digit) => bar(button, device.shares[digit]!, digit === device.digit));
}

function one(id: string, { digit, shares }: Guess): void {
  found(id).textContent = String(digit);
  found(`${id}-share`).textContent = `${percent(shares[digit]!)} sure`;
}

function bar(button: HTMLButtonElement, share: number, guess: boolean): void {
  button.style.setProperty("--share", String(share));
  button.classList.toggle("guessed", guess);
}

export function teaching(digit: number): void {
  answers.disabled = true;
  clear.disabled = true;
  say(`Learning that this is a ${digit} …`);
}

export function taught(digit: number, what: string, drawings: readonly Drawing[]): void {
  say(what);
  showDrawings(drawings);
  buttons[digit]!.focus({ preventScroll: true });
}

function showDrawings(drawings: readonly Drawing[]): void {
  found("drawings").textContent = drawings.length === 1 ? "1 drawing" : `${drawings.length} drawings`;
  const strip = found("strip");
  strip.replaceChildren(...drawings.map(thumbnail));
}

function thumbnail({ numbers, digit }: Drawing): HTMLLIElement {
  const item = document.createElement("li");
  const canvas = Object.assign(document.createElement("canvas"), { width: 8, height: 8 });
  canvas.ariaHidden = "true";
  item.append(canvas, String(digit));
  const brush = canvas.getContext("2d")!;
  numbers.forEach((ink, place) => {
    brush.fillStyle = `rgb(15 124 130 / ${ink / 16})`;
    brush.fillRect(place % 8, Math.floor(place / 8), 1, 1);
  });
  return item;
}

export function sharing(on: boolean, drawings: number): void {
  sharingSwitch.setAttribute("aria-checked", String(on));
  const waiting = drawings > 0 ? "waiting for the next round" : "versions arrive; nothing is sent before you teach it a digit";
  state(on ? waiting : "paused: nothing leaves this device");
}

export function state(what: string): void {
  found("state").textContent = what;
}

/** Show everything that left, newest first; the version of a round is there when it is at least as new. */
export function releases(all: readonly Release[], newest: number): void {
  const bytes = all.reduce((sum, each) => sum + each.bytes, 0);
  const changes = all.length === 1 ? "1 change" : `${all.length} changes`;
  found("total").textContent = all.length === 0 ? "Nothing yet." : `${changes}, ${counted(bytes)} bytes. No drawing.`;
  found("left").hidden = all.length === 0;
  found("releases").replaceChildren(...all.map((release) => line(release, newest)));
}

function line(release: Release, newest: number): HTMLTableRowElement {
  const row = document.createElement("tr");
  const cells = [
    String(release.round),
    new Date(release.time * 1000).toLocaleTimeString("en-GB"),
    counted(release.bytes),
    release.norm.toPrecision(3),
    outcome(release, newest),
  ];
  row.append(...cells.map((text) => Object.assign(document.createElement("td"), { textContent: text })));
  return row;
}

function outcome({ accepted, refused, round }: Release, newest: number): string {
  if (refused !== undefined) return "not used";
  if (accepted === undefined) return "to be sent";
  return newest >= round ? `version ${round}` : "…";
}

export function left(): void {
  ready_ = false;
  document.querySelectorAll("button, fieldset").forEach((each) => ((each as HTMLButtonElement).disabled = true));
  showDrawings([]);
  found("device").textContent = "";
  state("left");
  say("You left. Everything that was here is deleted.");
}

function counted(count: number): string {
  return count.toLocaleString("en");
}

export function percent(share: number): string {
  return `${Math.round(100 * share)}\u00a0%`;
}

// Pieces that several views are made of.

import { h } from "./dom.js";

export const empty = (title, text, command) =>
  h("div", { class: "empty" }, h("h2", {}, title), h("p", {}, text), command && h("pre", {}, h("code", {}, command)));

export const fact = (name, value, more) => h("div", { class: "fact" }, h("dt", {}, name), h("dd", {}, value, more && h("small", {}, more)));

export const facts = (...given) => h("dl", { class: "facts" }, given);

export const badge = (kind, text = kind) => h("span", { class: `badge ${kind.replace(/\W/g, "-")}` }, text);

export function table(caption, heads, rows, options = {}) {
  return h(
    "div",
    { class: "scroll", tabindex: "0", role: "region", "aria-label": caption },
    h(
      "table",
      {},
      h("caption", { class: options.caption ? "" : "hidden" }, caption),
      h("thead", {}, h("tr", {}, heads.map((head) => h("th", { scope: "col", class: head.startsWith("#") ? "number" : "" }, head.replace(/^#/, ""))))),
      h("tbody", {}, rows.map((cells) => h("tr", {}, cells.map((cell, index) => h("td", { class: heads[index].startsWith("#") ? "number" : "" }, cell))))),
    ),
  );
}

export function bar(share, label) {
  const percent = Math.max(0, Math.min(100, share * 100));
  return h(
    "div",
    { class: "bar", role: "progressbar", "aria-label": label, "aria-valuemin": 0, "aria-valuemax": 100, "aria-valuenow": Math.round(percent) },
    h("div", { style: { width: `${percent}%` } }),
  );
}

/** Ask before something that cannot be taken back. */
export function sure(question, word) {
  return new Promise((settled) => {
    const dialog = document.createElement("dialog");
    const close = (answer) => {
      dialog.close();
      dialog.remove();
      settled(answer);
    };
    const title = document.createElement("p");
    title.id = "question";
    title.textContent = question;
    dialog.setAttribute("aria-labelledby", "question");
    const row = document.createElement("div");
    row.className = "row";
    for (const [text, answer] of [[word, true], ["Leave it", false]]) {
      const button = document.createElement("button");
      button.textContent = text;
      button.className = answer ? "danger" : "";
      button.onclick = () => close(answer);
      row.append(button);
    }
    dialog.append(title, row);
    dialog.oncancel = () => close(false);
    document.body.append(dialog);
    dialog.showModal();
  });
}

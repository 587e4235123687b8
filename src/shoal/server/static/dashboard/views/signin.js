// Signing in: the token goes into a cookie that scripts cannot read.

import { call } from "../api.js";
import { h, render } from "../dom.js";

export function signIn(root, done, why = "") {
  let wrong = why;
  const draw = () =>
    render(
      root,
      h(
        "form",
        {
          class: "card signin",
          onsubmit: async (event) => {
            event.preventDefault();
            const field = root.querySelector("input");
            try {
              await call("POST", "/v1/session", { token: field.value });
              done();
            } catch (error) {
              wrong = error.message;
              draw();
              field.select();
            }
          },
        },
        h("h1", {}, "Sign in"),
        h("label", { for: "token" }, "API token"),
        h("input", { id: "token", type: "password", autocomplete: "current-password", required: true, autofocus: true, spellcheck: "false", "aria-describedby": "wrong" }),
        h("p", { id: "wrong", class: "wrong", role: "alert" }, wrong),
        h("button", { class: "main", type: "submit" }, "Sign in"),
        h("p", { class: "quiet" }, "The first start of ", h("code", {}, "shoal server"), " printed an admin token. For others:"),
        h("pre", {}, h("code", {}, "shoal tokens create --role viewer")),
      ),
    );
  draw();
  root.querySelector("input").focus();
}

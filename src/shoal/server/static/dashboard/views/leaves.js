// What leaves a device that takes part, from the task's own spec: arrays by role, and all that goes with them.

import { at, get } from "../api.js";
import { h } from "../dom.js";
import { bytes, number } from "../format.js";
import { badge, fact, facts, table } from "../parts.js";

const SIZES = { float16: 2, float32: 4, float64: 8, int64: 8, int32: 4, int16: 2, int8: 1, uint8: 1, bool: 1 };
const ROLES = {
  trainable: ["leaves", "its change, clipped by the bounds"],
  buffer: ["leaves", "its change"],
  counter: ["leaves", "how far it moved"],
  frozen: ["stays", "the same everywhere"],
  local: ["stays", "personal; the coordinator refuses it"],
};

export function leaves({ id, draw }) {
  let spec = null;
  get(at(id)).then((found) => {
    spec = found;
    draw();
  }, () => {});
  return {
    draw() {
      if (spec === null) return h("p", { class: "quiet" }, "Loading…");
      const arrays = Object.entries(spec.arrays);
      const size = (a) => (SIZES[a.dtype] ?? 8) * a.shape.reduce((product, length) => product * length, 1);
      const moving = arrays.filter(([, a]) => ROLES[a.role ?? "trainable"][0] === "leaves");
      return [
        h("p", {}, "No row leaves a device. After local training it sends one update, and its own log says so before anything is sent."),
        facts(
          fact("An update", bytes(moving.reduce((sum, [, a]) => sum + size(a), 0)), "before the head"),
          fact("Weight", "rows it trained on", `at most ${number(spec.bounds.max_weight)}`),
          fact("Bound of a value", number(spec.bounds.max_abs), "larger ones are refused"),
          fact("Measured there", ["loss", ...(spec.columns ?? [])].join(", "), "one number each"),
        ),
        table(
          "Arrays of the model",
          ["Array", "Role", "Shape", "Type", "#Size", "Leaves?", "What of it"],
          arrays.map(([name, a]) => {
            const [leaving, what] = ROLES[a.role ?? "trainable"];
            return [h("code", {}, name), a.role ?? "trainable", a.shape.length === 0 ? "one number" : a.shape.join(" × "), a.dtype, bytes(size(a)), badge(leaving), what];
          }),
        ),
        Object.keys(spec.extra ?? {}).length > 0 && h("p", {}, `Beside the change: ${Object.keys(spec.extra).join(", ")}, with the shapes of the trainable arrays.`),
        h("p", { class: "quiet" }, "With each report come seconds, bytes and the versions of the device's software. Each owner's policy may refuse any of it."),
      ];
    },
  };
}

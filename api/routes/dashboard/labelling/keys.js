// Which key does what in the room Label?

import { el, fill } from "../base/dom.js";

export const KEYS = 9;
const ALL = [
  ["Enter", "take the prediction"], ["1–9", "the label on this key"], ["/", "find any label by a part of its name"], ["s", "skip: it comes to others, or back later"],
  ["u", "undo the last step, whatever it was; also Ctrl Z"], ["n", "write a note that goes with the label"], ["?", "show these keys"], ["Esc", "leave a field, and have the keys again"],
];

/** Show them, and what holds for all. */
export function showKeys(parent) {
  fill(parent, el("dl", { class: "keys" }, ...ALL.flatMap(([key, does]) => [el("dt", {}, el("kbd", {}, key)), el("dd", {}, does)])),
    el("p", { class: "note" }, "Undo takes a label back in the log. What the model has learned of it stays until the message has another label, or until driftline rebuild."));
}

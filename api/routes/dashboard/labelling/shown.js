// How does a text look in which words are marked? Texts only ever as text.

import { el } from "../base/dom.js";
import { runs } from "../base/marks.js";

/** Return a text as nodes, its words marked as far as there is a reason for a label. */
export function marked(text, reason, label) {
  if (!reason || reason.label === null) return [text];
  const part = text.slice(0, reason.length);
  return [...runs(part, reason.features, label ?? reason.label).map(([run, strength]) => (strength === 0 ? run : mark(run, strength))), text.slice(reason.length)];
}

export function mark(part, strength) {
  return el("mark", { class: strength > 0 ? "for" : "against", "--depth": Math.abs(strength) }, part);
}

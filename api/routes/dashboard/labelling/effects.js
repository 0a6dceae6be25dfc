// What was labelled in this tab, and what did that change? And what of it was not sent, or was taken back?

import { address } from "../base/address.js";
import { $, el, fill } from "../base/dom.js";
import { count, cut, many, score } from "../base/format.js";
import * as outbox from "./outbox.js";
import { trail, whenChanged } from "./trail.js";

const EFFECTS = 3;
const SHORT = 40; // characters of a label
let onChange = () => {};

/** Show it, now and after each change; a step whose label somebody wants to change is handed on. */
export function start(change) {
  onChange = change;
  for (const step of trail.done) {
    if (step.item && step.kind !== "skip" && !outbox.isUnsent(step.id)) step.effect ??= "sent"; // before a reload
  }
  whenChanged(show);
  show();
}

function show() {
  const given = new Map(); // message: its last step with a label
  for (const step of trail.done) {
    if (!step.item || step.kind === "skip") continue;
    given.delete(step.item.request.id);
    given.set(step.item.request.id, step);
  }
  const steps = [...given.values()];
  const right = steps.filter(({ item, label }) => item.request.label === label).length;
  const left = [...trail.back, ...trail.done.map(({ item }) => item)].filter((item) => item?.kept && !given.has(item.request.id));
  const kept = new Set(left.map(({ request }) => request.id)).size;
  const rows = [
    kept ? el("li", { class: "worse" }, `${many(kept, "label")} taken back: the model keeps what it learned until the message is labelled again, or until driftline rebuild.`) : null,
    steps.length ? el("li", {}, el("span", {}, `${count(steps.length)} labelled here, ${count(right)} as predicted`), "") : null,
    ...steps.slice(-EFFECTS).reverse().map(effect),
  ];
  fill($("effects"), ...rows.filter((row) => row !== null));
}

function effect(step) {
  const { request } = step.item;
  const was = request.label === null ? "" : `was ${request.label} ${score(request.score)}, `;
  const is = step.effect ?? (outbox.isUnsent(step.id) ? "sending …" : "learning …");
  return el("li", {}, el("a", { class: "cut", dir: "auto", href: address("messages", { id: request.id }) }, cut(request.text, 200)),
    el("span", { class: step.says === undefined ? null : step.says === step.label ? "better" : "worse" }, was + is),
    el("button", { type: "button", class: "quiet small", "aria-label": `Change ${cut(step.label, SHORT)}: ${cut(request.text, SHORT)}`, onclick: () => onChange(step) }, "Change"));
}

// What came in lately, what was said of it, and what was it really?

import { get } from "./api.js";
import { $, choice, el, fill } from "./dom.js";
import { fieldList } from "./fields.js";
import { score, time } from "./format.js";

const SHOWN = 14;
const WHICH = [["messages", "All"], ["labelled", "Labelled"], ["mistakes", "Mistakes"]];
const EMPTY = {
  messages: "No message yet. POST one to /messages, or send a file: driftline send FILE --label-delay 100, with the --data or --log of the learner",
  labelled: "No label has met its message yet. POST labels to /feedback, with the message's id.",
  mistakes: "None of the last labels was a surprise.",
};
let which = "messages";

export function start() {
  choice($("recent-which"), WHICH, which, (value) => {
    which = value;
    refresh().catch(showRefusal);
  });
}

export async function refresh() {
  const { messages, labelled } = await get("recent");
  const mistaken = labelled.filter((each) => each.predicted !== null && each.predicted !== each.label && !each.retracted);
  const seen = { messages, labelled, mistakes: mistaken }[which].slice(0, SHOWN);
  fill($("recent-list"), seen.length ? el("ul", { class: "seen" }, ...seen.map(row)) : el("p", { class: "empty" }, EMPTY[which]));
}

/** Say so where the key's role is too small; other errors pass by themselves. */
export function showRefusal(error) {
  if (error.status === 403) fill($("recent-list"), el("p", { class: "empty" }, `${error.message}. ${error.action}`));
}

function row(each) {
  const predicted = each.predicted === null ? "no prediction" : `${each.predicted} ${score(each.score)}`;
  return el("li", {},
    el("span", { class: "time" }, time(each.timestamp_ms)),
    el("span", { class: "text", dir: "auto", title: each.text }, each.text),
    el("span", { class: "predicted" }, predicted),
    truth(each),
    fieldList(each.fields));
}

function truth({ predicted, label, retracted }) {
  if (label === null) return el("span", { class: "open" }, "no label yet");
  if (retracted) return el("span", { class: "open" }, el("s", {}, label), " taken back");
  if (predicted === null) return el("span", {}, label);
  return predicted === label ? el("span", { class: "better" }, `✓ ${label}`) : el("span", { class: "worse" }, `✗ ${label}`);
}

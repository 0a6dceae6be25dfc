// Which message is to be labelled next, what was it labelled as, and what did that change?

import { get, newId, post, teach } from "./api.js";
import { $, announce, el, fill, setText } from "./dom.js";
import { count, cut, percent, ranked, score, share } from "./format.js";

const KEYS = 9;
const EFFECTS = 3;
const NEXT = 4; // texts shown beneath
const DONE = 500; // ids to remember
let waiting = []; // requests, the current one first
let labels = [];
let hasLearner = true; // one has run at least
let perHour = null;
let refusal = ""; // why this key may not see them
const done = []; // {request, label, effect}, the newest last
const gone = new Set(); // ids labelled or skipped here

export function start() {
  $("queue-box").addEventListener("keydown", onKey);
  $("queue").addEventListener("keydown", (event) => {
    if ((event.ctrlKey || event.metaKey) && event.key === "z" && event.target.tagName !== "INPUT") {
      event.preventDefault();
      undo();
    }
  });
  show();
}

export function setModel(model) {
  const known = model.labels;
  if (JSON.stringify(known) === JSON.stringify(labels) && hasLearner === (model.learner !== null)) return;
  labels = known;
  hasLearner = model.learner !== null;
  fill($("known-labels"), ...labels.slice(0, 100).map((label) => el("option", { value: label })));
  const typing = document.activeElement?.tagName === "INPUT" && $("queue-body").contains(document.activeElement);
  if (!typing) show();
}

export async function refresh() {
  const answer = await get("/label-requests?n=100");
  perHour = answer.per_hour;
  refusal = "";
  const open = new Map(answer.requests.filter((each) => !gone.has(each.id)).map((each) => [each.id, each]));
  const current = waiting[0];
  const kept = waiting.filter((each, i) => open.has(each.id) || (i === 0 && done.at(-1)?.request !== each));
  const known = new Set(kept.map((each) => each.id));
  waiting = [...kept, ...[...open.values()].filter((each) => !known.has(each.id))];
  if (current === undefined || waiting[0] !== current) show();
  showNext();
  setText($("queue-count"), waiting.length ? `${count(waiting.length)} waiting` : "");
  showEstimate(answer.estimate);
}

/** Say so where the key's role is too small; other errors pass by themselves. */
export function showRefusal(error) {
  if (error.status !== 403) return;
  refusal = `${error.message}. ${error.action}`;
  waiting = [];
  show();
  showNext();
  for (const id of ["queue-count", "estimate"]) setText($(id), "");
}

function showEstimate({ labels, accuracy, standard_error: error }) {
  const text = error === null ? "" :
    `Accuracy on all messages, told from ${count(labels)} of these that have a label by now, each weighted by 1 / chance: ${share(accuracy)} ± ${share(2 * error)}`;
  setText($("estimate"), text);
}

/** The labels on the keys: always in the same places while there are few, else those that are likeliest. */
function picks(request) {
  if (labels.length <= KEYS) return labels;
  return ranked(request.scores).slice(0, KEYS).map(([label]) => label);
}

function show() {
  const request = waiting[0];
  if (!request) {
    fill($("queue-body"), el("p", { class: "empty" }, emptyText()), done.length ? el("div", { class: "row" }, undoButton()) : null);
    return;
  }
  const said = request.label === null ? "no prediction yet" : `predicted ${request.label} at ${score(request.score)}`;
  fill($("queue-body"),
    el("p", { class: "message", dir: "auto" }, request.text, request.truncated ? "…" : ""),
    el("p", { class: "note" }, `${said} · chosen at ${percent(request.chance)}`),
    el("div", { class: "picks" }, ...picks(request).map((label, i) => pick(request, label, i + 1))),
    other());
}

function emptyText() {
  if (refusal) return refusal;
  if (!hasLearner) return "No learner has run yet: `driftline up`, or `driftline learn` beside this, starts one.";
  if (perHour === 0) return "Label requests are off. Start the learner with --label-requests-per-hour 60.";
  return "Nothing to label now. Messages that the model is unsure of show up here as they come in.";
}

function pick(request, label, number) {
  const value = Object.hasOwn(request.scores, label) ? request.scores[label] : 0;
  return el("button", { type: "button", class: "pick", "--share": value, onclick: () => give(label), "aria-keyshortcuts": String(number) },
    el("kbd", { "aria-hidden": "true" }, String(number)), el("span", { class: "name" }, label), el("span", { class: "share" }, score(value)));
}

function other() {
  const input = el("input", { "aria-label": "Another label", placeholder: "another label", list: "known-labels", maxlength: 256, autocomplete: "off" });
  input.addEventListener("keydown", (event) => {
    if (event.key === "Enter" && input.value.trim()) give(input.value.trim());
    if (event.key === "Escape") $("queue-box").focus();
  });
  return el("div", { class: "row" }, input, el("button", { type: "button", onclick: skip }, "Skip"), undoButton());
}

function undoButton() {
  const last = done.at(-1);
  return last && el("button", { type: "button", "aria-label": `Undo: ${cut(last.label, 40)}`, onclick: undo }, "Undo");
}

function onKey(event) {
  if (event.target.tagName === "INPUT" || event.ctrlKey || event.metaKey || event.altKey) return;
  const number = Number(event.key);
  if (number >= 1 && number <= KEYS) {
    const label = waiting[0] && picks(waiting[0])[number - 1];
    if (label !== undefined) give(label);
  } else if (event.key === "s") skip();
  else if (event.key === "u") undo();
  else return;
  event.preventDefault();
}

function showNext() {
  fill($("next"), ...waiting.slice(1, 1 + NEXT).map(({ text }) => el("li", { class: "cut", dir: "auto" }, text)));
}

function next() {
  if (gone.size > DONE) gone.delete(gone.values().next().value);
  waiting.shift();
  setText($("queue-count"), waiting.length ? `${count(waiting.length)} waiting` : "");
  show();
  showNext();
  $("queue-box").focus({ preventScroll: true });
}

function skip() {
  if (!waiting.length) return;
  gone.add(waiting[0].id);
  next();
  announce(waiting[0] ? `Skipped. Next: ${cut(waiting[0].text, 200)}` : "Skipped. Nothing is left.");
}

async function give(label) {
  const request = waiting[0];
  if (!request) return;
  gone.add(request.id);
  const entry = { request, label, effect: null };
  done.push(entry);
  if (done.length > DONE) done.shift();
  next();
  announce(`Labelled ${label}. ${waiting[0] ? `Next: ${cut(waiting[0].text, 200)}` : "Nothing is left."}`);
  showEffects();
  try {
    const { learned } = await teach({ message_id: request.id, label }, request.text);
    setText($("queue-note"), "");
    const { now, error } = await learned;
    entry.effect = now ? `now ${now.label} ${score(now.score)}` : error.code === "pinned" ? "sent; a snapshot answers" : "sent; not learned yet";
    if (now) announce(`The model now says ${now.label}, ${percent(now.score)}.`);
  } catch (error) {
    putBack(entry);
    setText($("queue-note"), `Not taken: ${error.message}. ${error.action} The message is in the queue again.`);
  }
  showEffects();
}

/** Have a message labelled again whose label was refused: behind the one that somebody may be about to label. */
function putBack(entry) {
  const at = done.indexOf(entry);
  if (at < 0) return; // it was taken back meanwhile
  done.splice(at, 1);
  gone.delete(entry.request.id);
  waiting.splice(1, 0, entry.request);
  if (waiting.length === 1) show();
  showNext();
}

/** Take the last label back: one that still waits is dropped, one that was learned is corrected by the next. */
async function undo() {
  const entry = done.pop();
  if (!entry) return;
  gone.delete(entry.request.id);
  waiting.unshift(entry.request);
  show();
  showEffects();
  $("queue-box").focus({ preventScroll: true });
  announce(`Taken back: ${entry.label}. Label it again: ${cut(entry.request.text, 200)}`);
  const feedback = { id: newId(), source: "page", message_id: entry.request.id, label: entry.label, op: "retract" };
  try {
    await post("/feedback", feedback);
  } catch (error) {
    setText($("queue-note"), `Not taken back: ${error.message}. It is ${entry.label} until it is labelled again.`);
  }
}

function showEffects() {
  const right = done.filter(({ request, label }) => request.label === label).length;
  const total = done.length && el("li", {}, el("span", {}, `${count(done.length)} labelled here, ${count(right)} as predicted`), "");
  const last = done.slice(-EFFECTS).reverse().map(({ request, label, effect }) => {
    const was = request.label === null ? "" : `was ${request.label} ${score(request.score)}, `;
    return el("li", {}, el("span", { class: "cut", dir: "auto" }, request.text),
      el("span", { class: request.label === label ? "better" : "worse" }, was + (effect ?? "learning …")));
  });
  fill($("effects"), ...(total ? [total, ...last] : []));
}

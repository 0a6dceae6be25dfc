// What is this message? One key says it, and the next one is there.
//
// Keys label while this room is seen and nothing is written; which label is on which key never changes while a message
// is shown. What to label is the queue's (labelling/queue.js); here it is shown, and keys and buttons become steps.

import { address, go } from "../base/address.js";
import { $, el, fill, setText } from "../base/dom.js";
import { fieldList } from "../base/fields.js";
import { count, many, percent, ranked, score, share } from "../base/format.js";
import { setting } from "../base/kept.js";
import { describe } from "../base/learner.js";
import { Poll } from "../base/poll.js";
import * as effects from "../labelling/effects.js";
import { countOf, lateness } from "../labelling/found.js";
import { KEYS, showKeys } from "../labelling/keys.js";
import { HELD, change, enter, give, goOn, leaveRoom, queue, refresh, reset, showRefusal, skip, start, undoHere, warningOf } from "../labelling/queue.js";
import { forgetReadings, prepare, reasonOf, textOf } from "../labelling/reading.js";
import { marked } from "../labelling/shown.js";
import { labelledToday, trail, whenChanged } from "../labelling/trail.js";
import { TypeAhead } from "../labelling/typeahead.js";

const WIDE = 40; // characters: a longer name has a line of its own
let labels = [];
let learner = ""; // what it says, unless it learns
let waitsInAll = 0; // messages without a label, as the learner counts them
let finder;
let isSeen = false;
let onKeys = { id: null, picks: [], isFull: false }; // of the message that is shown

const poll = new Poll(1.5, refresh, showRefusal);

export const label = {
  name: "label",
  title: "Label",
  start() {
    finder = new TypeAhead($("queue-find"), "Another label", () => labels, (name) => say(name), () => $("queue-box").focus({ preventScroll: true }));
    document.addEventListener("keydown", onKey);
    $("queue-from").addEventListener("change", () => choose($("queue-from").value));
    $("queue-skip").addEventListener("click", skip);
    $("queue-undo").addEventListener("click", undoHere);
    $("queue-note-open").addEventListener("click", openNote);
    $("queue-help").addEventListener("click", openHelp);
    $("help-close").addEventListener("click", () => $("help").close());
    $("queue-note-text").addEventListener("keydown", (event) => {
      if (event.key !== "Enter" && event.key !== "Escape") return;
      if (event.key === "Escape") $("queue-note-text").value = "";
      event.preventDefault();
      event.stopPropagation();
      $("queue-noting").hidden = !$("queue-note-text").value.trim();
      $("queue-box").focus({ preventScroll: true });
    });
    showKeys($("help-keys"));
    start(show, (text) => setText($("queue-note"), text));
    effects.start((step) => change(step));
    whenChanged(showToday);
    show();
  },
  show(params) {
    isSeen = true;
    enter(params);
    show();
    if (!poll.start()) poll.run();
  },
  hide() {
    isSeen = false;
    poll.stop();
    leaveRoom();
  },
  again: () => poll.run(),
  reset() {
    forgetReadings();
    reset();
    if (isSeen) poll.run();
  },
  model(model) {
    const said = describe(model.learner);
    const text = said.mood === "good" ? "" : said.text;
    waitsInAll = model.pending;
    if (JSON.stringify(model.labels) === JSON.stringify(labels) && text === learner) return;
    [labels, learner] = [model.labels, text];
    show();
  },
};

/** Go to another queue. */
function choose(from) {
  if (from === "search") go("messages", { state: "unlabelled" });
  else go("label", from === "asked" ? {} : { from });
}

/** Show the current message, and those that come next. `isNext`: something was done with the one before. */
function show(isNext = false) {
  const item = queue.waiting[0];
  const isThere = Boolean(item) && !queue.paused;
  const isOther = onKeys.id !== (item?.request.id ?? null);
  if (isOther && $("queue-find").contains(document.activeElement) && !isNext && isThere && onKeys.id !== null) return; // somebody writes
  if (isOther) {
    onKeys = { id: item?.request.id ?? null, picks: [], isFull: false };
    $("queue-text").scrollTop = 0;
    $("queue-note-text").value = "";
    $("queue-noting").hidden = true;
    finder.close();
  }
  for (const id of ["queue-body", "queue-row"]) $(id).hidden = !isThere;
  $("queue-row").hidden = !isThere && !trail.done.length;
  $("queue-skip").hidden = $("queue-note-open").hidden = !isThere;
  $("queue-undo").hidden = !trail.done.length;
  const last = trail.done.at(-1);
  if (last) $("queue-undo").setAttribute("aria-label", `Undo: ${nameOf(last)}`);
  showEmpty(isThere);
  if (isThere) showItem(item);
  else for (const id of ["queue-text", "queue-fields", "queue-said", "queue-picks"]) fill($(id)); // nothing of it stays for the next person
  showHead();
  fill($("next"), ...queue.waiting.slice(1, HELD).map(({ request }) => el("li", { class: "cut", dir: "auto" }, request.text)));
  $("next-title").hidden = queue.waiting.length < 2;
  if (isNext && isSeen) $("queue-box").focus({ preventScroll: true });
  if (isSeen && isThere) prepare(queue.waiting.slice(0, 3).map(({ request }) => request), labels.length > 0, () => show());
}

function showItem(item) {
  const { request } = item;
  const { text, fields, isWhole } = textOf(request);
  const reason = reasonOf(request);
  fill($("queue-text"), ...marked(text, reason), isWhole ? null : "…");
  fill($("queue-fields"), fieldList(fields) ?? "", isWhole ? "" : el("p", { class: "note" }, "This is the beginning of a longer text."));
  setText($("queue-warning"), warningOf(item));
  const chance = request.chance === null ? "" : ` · chosen at ${percent(request.chance)}`;
  if (request.label === null) fill($("queue-said"), `no prediction yet${chance}`);
  else {
    fill($("queue-said"), el("span", {}, "predicted ", el("b", {}, request.label), ` at ${score(request.score)}${chance}`),
      el("button", { type: "button", class: "take", onclick: take, "aria-keyshortcuts": "Enter" }, "Take it ", el("kbd", { "aria-hidden": "true" }, "Enter")));
  }
  fill($("queue-picks"), ...picks(request, reason).map(([name, value], i) => pick(name, value, i + 1)),
    el("button", { type: "button", class: "pick", onclick: () => finder.open(), "aria-keyshortcuts": "/", "aria-haspopup": "listbox" },
      el("kbd", { "aria-hidden": "true" }, "/"), el("span", {}, labels.length > KEYS ? `all ${count(labels.length)} labels` : "another label")));
}

/** The labels on the keys: always in the same places while there are few, else those that are likeliest. */
function picks(request, reason) {
  const scores = { ...reason?.scores, ...request.scores };
  const valueOf = (name) => (Object.hasOwn(scores, name) ? scores[name] : 0);
  if (labels.length <= KEYS) return labels.map((name) => [name, valueOf(name)]);
  if (!onKeys.isFull && onKeys.picks.length < KEYS) {
    const own = ranked(request.scores).map(([name]) => name);
    const likely = Object.keys(request.scores).length < KEYS && reason ? ranked(reason.scores).map(([name]) => name) : [];
    onKeys.picks = [...new Set([...onKeys.picks, ...own, ...likely])].slice(0, KEYS); // what is on a key stays there
    onKeys.isFull = onKeys.picks.length === KEYS || reason !== null;
  }
  return onKeys.picks.map((name) => [name, valueOf(name)]);
}

function pick(name, value, number) {
  return el("button", { type: "button", class: Array.from(name).length > WIDE ? "pick long" : "pick", "--share": value, onclick: () => say(name), "aria-keyshortcuts": String(number) },
    el("kbd", { "aria-hidden": "true" }, String(number)), el("span", { class: "name", dir: "auto" }, name), el("span", { class: "share" }, score(value)));
}

function showHead() {
  const { source, answer, keyName } = queue;
  $("queue-from").value = source.isAsked ? "asked" : source.params.from;
  $("queue-search").hidden = !source.isSearch;
  if (source.isSearch) {
    const { from: _, ...filters } = source.params;
    $("queue-search").href = address("messages", filters);
  }
  const n = source.isAsked ? answer?.open : source.count;
  const waits = n ? `${countOf(n, source.isAsked || source.isExact)} ${source.isSearch ? "found" : "waiting"}` : "";
  setText($("queue-count"), [waits, keyName ? `you label as ${keyName}` : ""].filter(Boolean).join(" · "));
  showEstimate(source.isAsked && !queue.refusal ? answer?.estimate : null);
}

function showEstimate(estimate) {
  const { labels: n, accuracy, standard_error: error } = estimate ?? { standard_error: null };
  setText($("estimate"), error === null ? "" :
    `Accuracy on all messages, told from ${count(n)} of these that ${n === 1 ? "has" : "have"} a label by now, each weighted by 1 / chance: ${share(accuracy)} ± ${share(2 * error)}`);
}

function showToday() {
  const n = labelledToday();
  setText($("queue-today"), n ? `${count(n)} labelled today in this tab${queue.keyName ? ` as ${queue.keyName}` : ""}.` : "");
}

/** Where nothing is to be labelled, say why, and what can be done next. */
function showEmpty(isThere) {
  $("queue-empty").hidden = $("queue-next-step").hidden = isThere;
  if (isThere) return;
  const [text, ...next] = queue.paused
    ? ["Nobody did anything here for five minutes, so others may label these messages now.", el("button", { type: "button", onclick: goOn }, "Go on")]
    : empty();
  setText($("queue-empty"), text);
  fill($("queue-next-step"), ...next);
}

const link = (room, params, name) => el("a", { class: "button", href: address(room, params) }, name);

function empty() {
  const { source, answer, refusal } = queue;
  if (refusal) return [refusal];
  if (learner.startsWith("no learner")) return ["No learner has run yet: `driftline up`, or `driftline learn` beside this, starts one."];
  const late = learner ? `The learner is not at work yet, or no longer (${learner}). ` : "";
  if (source.isAsked) {
    const rest = Math.max(source.rest ?? 0, waitsInAll);
    const backlog = rest ? [link("label", { from: "new" }, "Label the backlog")] : [];
    const waits = rest ? ` ${many(rest, "message")} ${rest === 1 ? "waits" : "wait"} without a label.` : "";
    if (late) return [`${late}Messages to label show up once it is.${waits}`, ...backlog];
    if (answer?.per_hour === 0) return [`Label requests are off. Start the learner with --label-requests-per-hour 60.${waits}`, ...backlog];
    if (answer?.open) return [`Others are labelling all that was asked about. What they leave shows up here.${waits}`, ...backlog];
    if (rest) return [`You are asked about nothing now.${waits}`, ...backlog];
    return [answer ? "Nothing to label now. Messages that the model is unsure of show up here as they come in." : "Looking …", answer ? link("try", {}, "Teach it a text of yours") : ""];
  }
  if (source.count === null) return ["Looking …"];
  const behind = lateness(source.index);
  if (behind) return [`${late}Nothing more was found yet. ${behind}`];
  if (source.isSearch) return ["Nothing more was found.", link("messages", filters(), "Change the search")];
  return [`${late}No message is without a label.`, link("label", {}, "Those asked about"), link("messages", { state: "mistakes" }, "Look at mistakes")];
}

function filters() {
  const { from: _, ...known } = queue.source.params;
  return known;
}

function nameOf({ kind, label: name, before, items }) {
  if (kind === "skip") return "skip";
  if (kind === "bulk") return `${name}, ${items.length} messages`;
  return before ? `${before} → ${name}` : name;
}

/** Label the message that is shown; where another one has taken its place meanwhile, show that instead. */
function say(name) {
  if (queue.waiting[0]?.request.id !== onKeys.id) {
    show(true);
    setText($("queue-note"), "Nothing was labelled: it is another message now.");
    return;
  }
  give(name, $("queue-note-text").value.trim());
}

function take() {
  const item = queue.waiting[0];
  if (!item) return;
  if (item.request.label === null) setText($("queue-note"), "There is no prediction to take yet: press a number, or / for all labels.");
  else say(item.request.label);
}

function openNote() {
  $("queue-noting").hidden = false;
  $("queue-note-text").focus();
}

function openHelp() {
  $("help").showModal();
  $("help-title").focus();
}

const isWritten = ({ target }) => ["INPUT", "TEXTAREA", "SELECT"].includes(target.tagName) || target.isContentEditable;
const isPressed = ({ target }) => ["BUTTON", "A", "SUMMARY"].includes(target.tagName);
const ACTS = { s: skip, u: undoHere, n: openNote, "/": () => finder.open(), "?": openHelp, Enter: take };

function onKey(event) {
  if (!isSeen || isWritten(event) || event.altKey || $("help").open || setting("keys") === "off") return;
  if (event.ctrlKey || event.metaKey) {
    if (event.key !== "z" || event.shiftKey) return;
    undoHere();
  } else if (event.repeat || event.isComposing) return;
  else if (event.key >= "1" && event.key <= String(KEYS) && event.key.length === 1) {
    if (queue.paused) goOn();
    else if (queue.waiting[0]) {
      const { request } = queue.waiting[0];
      const chosen = picks(request, reasonOf(request))[Number(event.key) - 1];
      if (chosen) say(chosen[0]);
      else setText($("queue-note"), `No label is on ${event.key}: / finds all.`);
    }
  } else if (Object.hasOwn(ACTS, event.key)) {
    if (event.key === "Enter" && isPressed(event)) return; // the button's own
    if (queue.paused) goOn();
    else if (queue.waiting[0] || ["u", "?"].includes(event.key)) ACTS[event.key]();
    else return;
  } else return;
  event.preventDefault();
}

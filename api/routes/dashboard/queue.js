// Which message is to be labelled next, what was it labelled as, and what did that change?
//
// What is shown is this tab's: it claims the messages, so that nobody else is given them meanwhile. Before them stands
// what was brought back: {request, kept, changes}, where `kept` is the label that the model has learned and that was
// taken back, and `changes` the label that stands and is about to become another one.

import { get, learned, newId, post, postLast, setKeyName, signed } from "./api.js";
import { $, announce, el, fill, setText } from "./dom.js";
import { fieldList } from "./fields.js";
import * as effects from "./effects.js";
import { count, cut, many, percent, ranked, score, share } from "./format.js";
import { describe } from "./learner.js";
import * as outbox from "./outbox.js";
import { changed, forget, remember, trail, undo, whenUndone } from "./trail.js";

const KEYS = 9;
const HELD = 5; // messages claimed: the current one, and those shown beneath
const MAX_CLAIMED = 20;
const LOOKS = 3; // one after another, where others claim at the same time
// A claim is short while the page is there to renew it, longer while another tab is looked at, and over soon once the
// page goes, for good or to be loaded again. Where nobody does anything it is let go.
const SEEN_S = 20;
const HIDDEN_S = 300;
const LEFT_S = 5;
const RENEWED_MS = 7_000;
const IDLE_MS = 300_000;
const SHORT = 40; // characters of a label
let open = []; // what the learner asks for
let all = true; // whether that is all of it
let waiting = []; // {request, ...}, the current one first
let labels = [];
let learner = ""; // what it says, unless it learns
let perHour = null;
let refusal = ""; // why this key may not see them
let claimed = { ids: [], at: 0 }; // what was claimed last
let keyName = null;
let lost = false; // the current message is somebody else's by now, or no longer asked for
let shownId = null;
let active = Date.now(); // when somebody did something on the page
let paused = false; // nobody did for long
let leaving = false;
let [looking, nextLook] = [null, null];

export function start() {
  $("queue").addEventListener("keydown", onKey);
  document.addEventListener("keydown", onKeyElsewhere);
  for (const event of ["keydown", "pointerdown", "pointermove", "wheel"]) {
    addEventListener(event, () => { active = Date.now(); }, { capture: true, passive: true });
  }
  addEventListener("pagehide", () => {
    leaving = true; // a page that goes becomes hidden, too
    claimLast(LEFT_S);
  });
  addEventListener("pageshow", () => { leaving = false; });
  document.addEventListener("visibilitychange", () => document.hidden && !leaving && claimLast(HIDDEN_S));
  whenUndone("label", takeBack);
  whenUndone("skip", ({ item }) => bringBack(item, "Skip taken back."));
  whenUndone("change", changeBack);
  effects.start(change);
  outbox.start(onSent, onRefused);
  waiting = [...trail.back];
  show();
}

export function setModel(model) {
  const said = describe(model.learner);
  const text = said.mood === "good" ? "" : said.text;
  if (JSON.stringify(model.labels) === JSON.stringify(labels) && text === learner) return;
  [labels, learner] = [model.labels, text];
  fill($("known-labels"), ...labels.slice(0, 100).map((label) => el("option", { value: label })));
  show();
}

/** Another key is used: nothing of the person before is shown, or sent with it. */
export function reset() {
  const dropped = trail.unsent.length;
  forget();
  [open, waiting, claimed, keyName, lost, paused] = [[], [], { ids: [], at: 0 }, null, false, false];
  tell(dropped ? `${many(dropped, "label")} of the key before ${dropped === 1 ? "was" : "were"} not sent, and will not be.` : "");
  show();
  showNext();
}

/** Look what there is to label. One look at a time: a claim must not be overtaken by an older one. */
export function refresh() {
  if (!looking) {
    looking = look().finally(() => { looking = null; });
    return looking;
  }
  nextLook ??= looking.catch(() => {}).then(() => {
    nextLook = null;
    return refresh();
  });
  return nextLook;
}

async function look(tries = LOOKS) {
  const answer = await get("label-requests?n=100");
  perHour = answer.per_hour;
  refusal = "";
  open = answer.requests;
  all = open.length >= answer.open;
  if (!paused && Date.now() - active > IDLE_MS) await pause();
  else if (!paused && !(await claim(candidates())) && tries > 1) return look(tries - 1); // somebody else was sooner
  setText($("queue-count"), `${answer.open ? `${count(answer.open)} waiting` : ""}${keyName ? ` · you label as ${keyName}` : ""}`);
  showEstimate(answer.estimate);
}

/** The messages that this tab may have, in the order in which they are shown: those that it shows first. */
function candidates() {
  const gone = new Set(trail.done.flatMap(({ item }) => (item ? [item.request.id] : [])));
  const back = new Set(trail.back.map(({ request }) => request.id));
  const free = new Map(open.filter((each) => isFree(each) && !gone.has(each.id) && !back.has(each.id)).map((each) => [each.id, each]));
  const ids = new Set([...(waiting.length ? waiting.map(({ request }) => request.id) : trail.shown), ...free.keys()]);
  return [...ids].filter((id) => free.has(id)).slice(0, HELD).map((id) => ({ request: free.get(id) }));
}

const isFree = ({ claim }) => !claim || claim.by === trail.labeller || claim.by.endsWith(`/${trail.labeller}`);

/** Have the messages claimed, and show them; return whether all were to be had. */
async function claim(wanted) {
  const sending = trail.unsent.map(({ feedback }) => feedback.message_id); // until the API has the label
  const ids = [...new Set([...sending, ...[...trail.back, ...wanted].map(({ request }) => request.id)])].slice(0, MAX_CLAIMED);
  const isClaimed = open.every(({ id, claim }) => claim || !ids.includes(id)) && ids.join() === claimed.ids.join();
  let taken = new Set();
  if (!isClaimed || Date.now() - claimed.at > RENEWED_MS) {
    const answer = await post("label-requests/claim", { labeller: trail.labeller, ids, seconds: SEEN_S });
    keyName = answer.key;
    setKeyName(keyName);
    taken = new Set(answer.taken.filter((id) => !sending.includes(id))); // those have a label on its way, of this tab
    claimed = { ids, at: taken.size ? 0 : Date.now() };
  }
  dropTaken(taken);
  const current = waiting[0];
  const stillWanted = new Set(candidates().map(({ request }) => request.id)); // something may have been done meanwhile
  const held = wanted.filter(({ request }) => stillWanted.has(request.id) && !taken.has(request.id));
  const isShown = current !== undefined && !isDone(current);
  lost = isShown && ![...trail.back, ...held].some(({ request }) => request.id === current.request.id);
  waiting = [...trail.back, ...(lost ? [current] : []), ...held];
  if (isShown) waiting.sort((a, b) => (b.request.id === current.request.id) - (a.request.id === current.request.id));
  show();
  showNext();
  const shown = waiting.map(({ request }) => request.id);
  if (JSON.stringify(shown) !== JSON.stringify(trail.shown)) {
    trail.shown = shown;
    changed();
  }
  return !wanted.some(({ request }) => taken.has(request.id));
}

/** Claim what is here once more, for so long: nobody renews it for now. */
function claimLast(seconds) {
  const { ids } = claimed;
  claimed = { ids, at: 0 };
  if (ids.length) postLast("label-requests/claim", { labeller: trail.labeller, ids, seconds }).catch(() => {});
}

/** Let go of what is here: nobody is there. */
async function pause() {
  paused = true;
  [waiting, claimed, lost] = [[], { ids: [], at: 0 }, false];
  show();
  showNext();
  await post("label-requests/claim", { labeller: trail.labeller, ids: [] });
}

function goOn() {
  paused = false;
  refresh().catch(showRefusal);
  $("queue-box").focus({ preventScroll: true });
}

const isDone = ({ request }) => trail.done.some(({ item }) => item?.request.id === request.id);

/** A message that was brought back, and that somebody else has claimed or labelled meanwhile, is his. */
function dropTaken(taken) {
  const dropped = trail.back.filter((item) => taken.has(item.request.id) && !item.changes);
  if (!dropped.length) return;
  trail.back = trail.back.filter((item) => !dropped.includes(item));
  waiting = waiting.filter((item) => !dropped.some(({ request }) => request.id === item.request.id));
  changed();
  tell(`Somebody else has it now: ${cut(dropped[0].request.text, 80)}`);
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
    `Accuracy on all messages, told from ${count(labels)} of these that ${labels === 1 ? "has" : "have"} a label by now, each weighted by 1 / chance: ${share(accuracy)} ± ${share(2 * error)}`;
  setText($("estimate"), text);
}

/** The labels on the keys: always in the same places while there are few, else those that are likeliest. */
function picks(request) {
  if (labels.length <= KEYS) return labels;
  return ranked(request.scores).slice(0, KEYS).map(([label]) => label);
}

function show() {
  const item = waiting[0];
  const typing = document.activeElement?.tagName === "INPUT" && $("queue-body").contains(document.activeElement);
  if (typing && item && item.request.id === shownId) return;
  shownId = item?.request.id ?? null;
  if (paused) {
    fill($("queue-body"), el("p", { class: "empty" }, "Nobody did anything here for five minutes, so others may label these messages now."),
      el("div", { class: "row" }, el("button", { type: "button", onclick: goOn }, "Go on")));
    return;
  }
  if (!item) {
    fill($("queue-body"), el("p", { class: "empty" }, emptyText()), trail.done.length ? el("div", { class: "row" }, undoButton()) : null);
    return;
  }
  const { request } = item;
  const said = request.label === null ? "no prediction yet" : `predicted ${request.label} at ${score(request.score)}`;
  const warning = warningOf(item);
  fill($("queue-body"),
    el("p", { class: "message", dir: "auto" }, request.text, request.truncated ? "…" : ""),
    fieldList(request.fields),
    el("p", { class: "note" }, `${said} · chosen at ${percent(request.chance)}`),
    warning ? el("p", { class: "note worse" }, warning) : null,
    el("div", { class: "picks" }, ...picks(request).map((label, i) => pick(request, label, i + 1))),
    other());
}

function warningOf({ request, kept, changes }) {
  if (changes) return `You said ${cut(changes, SHORT)}. Another label takes its place; skip leaves it.`;
  if (kept) return `You took ${cut(kept, SHORT)} back. The model has learned it, and keeps it until you label this again, or until driftline rebuild.`;
  const isOpen = !all || open.some(({ id }) => id === request.id);
  return lost || (!isOpen && trail.back.some((item) => item.request.id === request.id)) ? "It is no longer in the queue: somebody else has it or has labelled it, or newer ones came. Your label would still count." : "";
}

function emptyText() {
  if (refusal) return refusal;
  if (learner.startsWith("no learner")) return "No learner has run yet: `driftline up`, or `driftline learn` beside this, starts one.";
  if (learner) return `The learner is not at work yet, or no longer (${learner}). Messages to label show up once it is.`;
  if (perHour === 0) return "Label requests are off. Start the learner with --label-requests-per-hour 60.";
  if (open.length) return "Others are labelling all that waits. What they leave shows up here.";
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
  const last = trail.done.at(-1);
  return last && el("button", { type: "button", "aria-label": `Undo: ${nameOf(last)}`, onclick: undoHere }, "Undo");
}

function nameOf({ kind, label, before }) {
  if (kind === "skip") return "skip";
  return cut(before ? `${before} → ${label}` : label, SHORT);
}

const isKey = (key) => (key >= "1" && key <= String(KEYS) && key.length === 1) || key === "s" || key === "u";
const isTyped = ({ target }) => ["INPUT", "TEXTAREA", "SELECT"].includes(target.tagName) || target.isContentEditable;

function onKey(event) {
  if (isTyped(event) || event.altKey) return;
  if (event.ctrlKey || event.metaKey) {
    if (event.key !== "z" || event.shiftKey) return;
    undoHere();
  } else if (!isKey(event.key) || event.repeat) return;
  else if (paused) goOn();
  else if (event.key === "s") skip();
  else if (event.key === "u") undoHere();
  else {
    const label = waiting[0] && picks(waiting[0].request)[Number(event.key) - 1];
    if (label !== undefined) give(label);
  }
  event.preventDefault();
}

/** A key that labels nothing where the focus is: say so, and take the focus where nobody has it. */
function onKeyElsewhere(event) {
  if (isTyped(event) || event.ctrlKey || event.metaKey || event.altKey || !isKey(event.key) || $("queue").contains(event.target)) return;
  if (document.activeElement === document.body) {
    $("queue-box").focus();
    tell(`Nothing was done: the keys label once the focus is here. It is now; press ${event.key} again.`);
  } else tell(`Nothing was done: ${event.key} labels only while the focus is here. Click the message first.`);
}

function tell(text) {
  setText($("queue-note"), text);
}

function showNext() {
  fill($("next"), ...waiting.slice(1, HELD).map(({ request }) => el("li", { class: "cut", dir: "auto" }, request.text)));
}

/** Take the current message off the queue, and remember what was done with it. */
function leave(step) {
  trail.back = trail.back.filter(({ request }) => request.id !== step.item.request.id);
  waiting.shift();
  lost = false;
  tell("");
  remember(step);
  settle(`${step.kind === "skip" ? "Skipped" : `Labelled ${step.label}`}. `);
}

/** Show the queue as it is now, and say what comes next. */
function settle(said) {
  show();
  showNext();
  $("queue-box").focus({ preventScroll: true });
  announce(`${said}${waiting[0] ? `Next: ${cut(waiting[0].request.text, 200)}` : "Nothing is left."}`);
  if (!refusal) refresh().catch(showRefusal); // what was left is let go, and another one claimed
}

function skip() {
  if (waiting.length) leave({ kind: "skip", item: waiting[0] });
}

function give(label) {
  const item = waiting[0];
  if (!item) return;
  const id = newId();
  if (item.changes === label) return skip(); // it is that already
  leave({ kind: item.changes ? "change" : "label", item, label, before: item.changes, id });
  outbox.send(signed({ id, message_id: item.request.id, label }));
}

function onSent(feedback, answer) {
  const step = trail.done.find(({ id }) => id === feedback.id);
  if (!step?.item) return;
  learned(answer, step.item.request).then(({ now, error }) => {
    step.effect = now ? `now ${now.label} ${score(now.score)}` : error.code === "pinned" ? "sent; a snapshot answers" : "sent; not learned yet";
    changed();
    if (now) announce(`The model now says ${now.label}, ${percent(now.score)}.`);
  });
}

/** Have a message labelled again whose label was refused: behind the one that somebody may be about to label. */
function onRefused(feedback, error) {
  const why = `${error.message}. ${error.action}`;
  const at = trail.done.findIndex(({ id }) => id === feedback.id);
  if (feedback.op === "retract") tell(`Not taken back: ${why} It is ${feedback.label} until it is labelled again.`);
  else if (at < 0 || !trail.done[at].item) tell(`Not taken: ${why}`);
  else {
    const [{ item }] = trail.done.splice(at, 1);
    const first = waiting[0]?.request.id;
    trail.back.splice(first !== undefined && trail.back[0]?.request.id === first ? 1 : 0, 0, item);
    waiting.splice(1, 0, item);
    changed();
    show();
    showNext();
    tell(`Not taken: ${why} The message is in the queue again.`);
  }
}

function undoHere() {
  if (paused) goOn();
  else if (trail.done.length) undo();
  else tell("Nothing is left to take back.");
}

function bringBack(item, said) {
  trail.back.unshift(item);
  waiting = [item, ...waiting.filter(({ request }) => request.id !== item.request.id)];
  lost = false;
  tell(said);
  settle("Taken back. ");
}

/** A label that was not sent yet is not sent; one that was, the model keeps until another one corrects it. */
function takeBack({ item, label, id }) {
  const was = outbox.drop(id);
  if (was) outbox.send(signed({ message_id: item.request.id, label, op: "retract" }));
  bringBack(was ? { ...item, kept: label } : item, `Taken back: ${cut(label, SHORT)}.`);
}

function changeBack({ item, before, label, id }) {
  if (outbox.drop(id)) outbox.send(signed({ message_id: item.request.id, label: before }));
  tell(`It is ${cut(before, SHORT)} again, not ${cut(label, SHORT)}.`);
  settle(`It is ${before} again. `);
}

/** Bring a message that was labelled here to the front, to be labelled otherwise. */
function change({ item, label }) {
  bringBack({ request: item.request, changes: label }, "");
}

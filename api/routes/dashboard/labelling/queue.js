// Which messages does this tab have before it, in which order, and what was done with them?
//
// What is shown is this tab's: it claims the messages, so that nobody else is given them meanwhile. Before them stands
// what was brought back: {request, kept, changes}, where `kept` is the label that the model has learned and that was
// taken back, and `changes` the label that stands and is about to become another one.
//
// They are those that the learner asks about, or what a search finds (source.js). How they are shown: rooms/label.js.

import { get, newId, learned, post, postLast, setKeyName, signed } from "../base/api.js";
import { announce } from "../base/dom.js";
import { cut, many, percent, score } from "../base/format.js";
import * as outbox from "./outbox.js";
import { Source } from "./source.js";
import { changed, countToday, forget, remember, trail, undo, whenUndone } from "./trail.js";

export const HELD = 5; // messages claimed: the current one, and those shown beneath
const MAX_CLAIMED = 20;
const LOOKS = 3; // one after another, where others claim at the same time
// A claim is short while the page is there to renew it, longer while another tab is looked at, and over soon once the
// page goes, for good or to be loaded again. Where nobody does anything it is let go.
const SEEN_S = 20;
const HIDDEN_S = 300;
const ROOM_S = 60; // in another room
const LEFT_S = 5;
const RENEWED_MS = 7_000;
const IDLE_MS = 300_000;
const TAKEN_MS = 60_000; // so long nobody asks again for what another one has
const SHORT = 40; // characters of a label

export const queue = {
  source: new Source(),
  waiting: [], // {request, ...}, the current one first
  answer: null, // of GET /label-requests, at the last look
  refusal: "", // why this key may not see them
  keyName: null,
  lost: false, // the current message is somebody else's by now, or no longer asked for
  paused: false, // nobody did anything for long
};
let open = []; // what there is to label
let all = true; // whether that is all of it
let claimed = { ids: [], at: 0 }; // what was claimed last
let others = new Map(); // what others have, of what a search found: until when that is believed
let active = Date.now(); // when somebody did something on the page
let leaving = false;
let seen = false; // the room
let [looking, nextLook] = [null, null];
let onShow = () => {};
let onTell = () => {};

/** Say how the queue is shown, and how something is said of it. */
export function start(show, tell) {
  [onShow, onTell] = [show, tell];
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
  outbox.start(onSent, onRefused);
  queue.waiting = [...trail.back];
}

/** The room is seen now. */
export function enter(params) {
  seen = true;
  active = Date.now();
  if (!queue.source.set(params)) return;
  [open, queue.waiting, claimed, queue.lost, queue.answer] = [[], [...trail.back], { ids: [], at: 0 }, false, null];
  onShow();
}

/** The room is left: what is claimed stays so for a while, as in a tab that is not looked at. */
export function leaveRoom() {
  if (seen) claimLast(ROOM_S);
  seen = false;
}

/** Another key is used: nothing of the person before is shown, or sent with it. */
export function reset() {
  const dropped = trail.unsent.length;
  forget();
  [open, claimed, others] = [[], { ids: [], at: 0 }, new Map()];
  Object.assign(queue, { waiting: [], answer: null, keyName: null, lost: false, paused: false, refusal: "" });
  queue.source.forget();
  onTell(dropped ? `${many(dropped, "label")} of the key before ${dropped === 1 ? "was" : "were"} not sent, and will not be.` : "");
  onShow();
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
  const { source } = queue;
  if (source.isAsked) {
    const answer = await get("label-requests?n=100");
    if (!source.isAsked) return; // somebody chose otherwise meanwhile
    queue.answer = answer;
    open = answer.requests;
    all = open.length >= answer.open;
    if (!open.length) await source.countRest();
  } else {
    const found = await source.fetch(isGone);
    if (found === null) return;
    [open, all] = [found, false];
  }
  queue.refusal = "";
  if (!queue.paused && Date.now() - active > IDLE_MS) await pause();
  else if (!queue.paused && !(await claim(candidates())) && tries > 1) return look(tries - 1); // somebody else was sooner
  onShow();
}

const isGone = (id) => trail.done.some(({ item }) => item?.request.id === id) || trail.back.some(({ request }) => request.id === id);

/** The messages that this tab may have, in the order in which they are shown: those that it shows first. */
function candidates() {
  const free = new Map(open.filter((each) => isFree(each) && !isGone(each.id)).map((each) => [each.id, each]));
  const ids = new Set([...(queue.waiting.length ? queue.waiting.map(({ request }) => request.id) : trail.shown), ...free.keys()]);
  return [...ids].filter((id) => free.has(id)).slice(0, HELD).map((id) => ({ request: free.get(id) }));
}

function isFree({ id, claim }) {
  if ((others.get(id) ?? 0) > Date.now()) return false;
  return !claim || claim.by === trail.labeller || claim.by.endsWith(`/${trail.labeller}`);
}

/** Have the messages claimed, and show them; return whether all were to be had. */
async function claim(wanted) {
  const { source } = queue;
  const sending = trail.unsent.map(({ feedback }) => feedback.message_id); // until the API has the label
  const ids = [...new Set([...sending, ...[...trail.back, ...wanted].map(({ request }) => request.id)])].slice(0, MAX_CLAIMED);
  const isClaimed = ids.join() === claimed.ids.join() && (!source.isAsked || open.every(({ id, claim }) => claim || !ids.includes(id)));
  let taken = new Set();
  if (!isClaimed || Date.now() - claimed.at > RENEWED_MS) {
    const answer = await post("label-requests/claim", { labeller: trail.labeller, ids, found: foundOf(ids), seconds: SEEN_S });
    queue.keyName = answer.key;
    setKeyName(queue.keyName);
    taken = new Set(answer.taken.filter((id) => !sending.includes(id))); // those have a label on its way, of this tab
    claimed = { ids, at: taken.size ? 0 : Date.now() };
    if (!source.isAsked) for (const id of taken) others.set(id, Date.now() + TAKEN_MS);
  }
  dropTaken(taken);
  const current = queue.waiting[0];
  const stillWanted = new Set(candidates().map(({ request }) => request.id)); // something may have been done meanwhile
  const held = wanted.filter(({ request }) => stillWanted.has(request.id) && !taken.has(request.id));
  const isShown = current !== undefined && !isDone(current);
  queue.lost = isShown && ![...trail.back, ...held].some(({ request }) => request.id === current.request.id);
  queue.waiting = [...trail.back, ...(queue.lost ? [current] : []), ...held];
  if (isShown) queue.waiting.sort((a, b) => (b.request.id === current.request.id) - (a.request.id === current.request.id));
  onShow();
  const shown = queue.waiting.map(({ request }) => request.id);
  if (JSON.stringify(shown) !== JSON.stringify(trail.shown)) {
    trail.shown = shown;
    changed();
  }
  return !wanted.some(({ request }) => taken.has(request.id));
}

/** Those of the messages that nobody may be asked about: they are claimed all the same. */
function foundOf(ids) {
  const back = new Set(trail.back.map(({ request }) => request.id));
  return queue.source.isAsked ? ids.filter((id) => back.has(id)) : ids;
}

/** Claim what is here once more, for so long: nobody renews it for now. */
function claimLast(seconds) {
  const { ids } = claimed;
  claimed = { ids, at: 0 };
  if (ids.length) postLast("label-requests/claim", { labeller: trail.labeller, ids, found: foundOf(ids), seconds }).catch(() => {});
}

/** Let go of what is here: nobody is there. */
async function pause() {
  [queue.paused, queue.waiting, claimed, queue.lost] = [true, [], { ids: [], at: 0 }, false];
  onShow();
  await post("label-requests/claim", { labeller: trail.labeller, ids: [] });
}

export function goOn() {
  queue.paused = false;
  refresh().catch(showRefusal);
}

const isDone = ({ request }) => trail.done.some(({ item }) => item?.request.id === request.id);

/** A message that was brought back, and that somebody else has claimed or labelled meanwhile, is his. */
function dropTaken(taken) {
  const dropped = trail.back.filter((item) => taken.has(item.request.id) && !item.changes);
  if (!dropped.length) return;
  trail.back = trail.back.filter((item) => !dropped.includes(item));
  queue.waiting = queue.waiting.filter((item) => !dropped.some(({ request }) => request.id === item.request.id));
  changed();
  onTell(`Somebody else has it now: ${cut(dropped[0].request.text, 80)}`);
}

/** Say so where the key's role is too small, or nothing can be found now; other errors pass by themselves. */
export function showRefusal(error) {
  if (error.status === 503 && !queue.source.isAsked && !queue.waiting.length) {
    queue.refusal = `${error.message}. ${error.action}`;
    onShow();
  }
  if (error.status !== 403 && error.status !== 422) return;
  Object.assign(queue, { refusal: `${error.message}. ${error.action}`, waiting: [], answer: null });
  onShow();
}

/** What is to be known of the current message beside what it says. */
export function warningOf({ request, kept, changes }) {
  if (changes) return `You said ${cut(changes, SHORT)}. Another label takes its place; skip leaves it.`;
  if (kept) return `You took ${cut(kept, SHORT)} back. The model has learned it, and keeps it until you label this again, or until driftline rebuild.`;
  const isOpen = !all || open.some(({ id }) => id === request.id);
  if (queue.lost || (!isOpen && trail.back.some((item) => item.request.id === request.id))) {
    return "It is no longer in the queue: somebody else has it or has labelled it, or newer ones came. Your label would still count.";
  }
  return request.known ? `It is ${cut(request.known, SHORT)} already. Another label takes its place; skip leaves it.` : "";
}

/** Take the current message off the queue, and remember what was done with it. */
function leave(step) {
  trail.back = trail.back.filter(({ request }) => request.id !== step.item.request.id);
  queue.waiting.shift();
  queue.lost = false;
  onTell("");
  remember(step);
  settle(`${step.kind === "skip" ? "Skipped" : `Labelled ${step.label}`}. `);
}

/** Show the queue as it is now, and say what comes next. */
function settle(said) {
  onShow(true);
  announce(`${said}${queue.waiting[0] ? `Next: ${cut(queue.waiting[0].request.text, 200)}` : "Nothing is left."}`);
  if (!queue.refusal) refresh().catch(showRefusal); // what was left is let go, and another one claimed
}

export function skip() {
  if (queue.waiting.length) leave({ kind: "skip", item: queue.waiting[0] });
}

/** Label the current message; a note goes with the label. */
export function give(label, note = "") {
  const item = queue.waiting[0];
  if (!item) return;
  const id = newId();
  const before = item.changes ?? item.request.known ?? null;
  if (before === label && !note) return skip(); // it is that already
  countToday(1);
  leave({ kind: before ? "change" : "label", item, label, before, id });
  outbox.send(signed({ id, message_id: item.request.id, label, ...(note ? { note } : {}) }));
}

function onSent(feedback, answer) {
  const step = trail.done.find(({ id }) => id === feedback.id);
  if (!step?.item) return;
  learned(answer, step.item.request).then(({ now, error }) => {
    if (now) step.says = now.label; // what was pressed, or not yet
    step.effect = now ? `now ${now.label} ${score(now.score)}` : error.code === "pinned" ? "sent; a snapshot answers" : "sent; not learned yet";
    changed();
    if (now) announce(`The model now says ${now.label}, ${percent(now.score)}.`);
  });
}

/** Have a message labelled again whose label was refused: behind the one that somebody may be about to label. */
function onRefused(feedback, error) {
  const why = `${error.message}. ${error.action}`;
  const at = trail.done.findIndex(({ id }) => id === feedback.id);
  if (feedback.op === "retract") onTell(`Not taken back: ${why} It is ${feedback.label} until it is labelled again.`);
  else if (at < 0 || !trail.done[at].item) onTell(`Not taken: ${why}`);
  else {
    const [{ item }] = trail.done.splice(at, 1);
    const first = queue.waiting[0]?.request.id;
    trail.back.splice(first !== undefined && trail.back[0]?.request.id === first ? 1 : 0, 0, item);
    queue.waiting.splice(1, 0, item);
    countToday(-1);
    onShow();
    onTell(`Not taken: ${why} The message is in the queue again.`);
  }
}

export function undoHere() {
  if (queue.paused) goOn();
  else if (trail.done.length) undo();
  else onTell("Nothing is left to take back.");
}

function bringBack(item, said) {
  trail.back.unshift(item);
  queue.waiting = [item, ...queue.waiting.filter(({ request }) => request.id !== item.request.id)];
  queue.lost = false;
  onTell(said);
  settle("Taken back. ");
}

/** A label that was not sent yet is not sent; one that was, the model keeps until another one corrects it. */
function takeBack({ item, label, id }) {
  const was = outbox.drop(id);
  if (was) outbox.send(signed({ message_id: item.request.id, label, op: "retract" }));
  countToday(-1);
  bringBack(was ? { ...item, kept: label } : item, `Taken back: ${cut(label, SHORT)}.`);
}

function changeBack({ item, before, label, id }) {
  if (outbox.drop(id)) outbox.send(signed({ message_id: item.request.id, label: before }));
  countToday(-1);
  onTell(`It is ${cut(before, SHORT)} again, not ${cut(label, SHORT)}.`);
  settle(`It is ${before} again. `);
}

/** Bring a message that was labelled here to the front, to be labelled otherwise. */
export function change({ item, label }) {
  bringBack({ request: item.request, changes: label }, "");
}

// What is known of one message: all that it says, what was predicted when and by which model, who labelled it, and why
// would the model say so now? Here it gets another label, or is erased.

import { learned, newId, post, remove, signed, withFields } from "../base/api.js";
import { $, announce, el, fill, setText } from "../base/dom.js";
import { fieldList } from "../base/fields.js";
import { count, date, many, ranked, score, signed as withSign } from "../base/format.js";
import { strongest } from "../base/marks.js";
import { isUnknown, whole } from "../labelling/found.js";
import { marked } from "../labelling/shown.js";
import { countToday, remember, undo, whenUndone } from "../labelling/trail.js";
import { TypeAhead } from "../labelling/typeahead.js";

const EXPLAINED = 10_000; // characters, as many as the API explains
const FEATURES = 200;
const WORDS = 8;
const NEXT_MS = 1500; // until what was sent is known
let labelsOf = () => [];
let shown = null; // the id of the message
let known = null; // all that is known of it
let reason = null;
let isSure = false; // erasing was asked for once
let back = "#messages";
let finder = null;
let timer = null;

export function startMessage(labels) {
  labelsOf = labels;
  whenUndone("relabel", takeBack);
}

export function resetMessage() {
  [known, reason] = [null, null];
  if (shown !== null) openMessage(shown, back);
}

export function closeMessage() {
  shown = null;
  clearTimeout(timer);
  $("message-one").hidden = true;
}

export async function openMessage(id, list) {
  back = list;
  if (shown === id && known) return;
  [shown, known, reason, isSure] = [id, null, null, false];
  frame();
  await look(id);
}

/** Make what stays while the message is looked at: its parts are filled later. */
function frame() {
  const part = (name, attributes = {}) => el("div", { id: `message-${name}`, ...attributes });
  $("message-one").replaceChildren(
    el("p", {}, el("a", { id: "message-back", href: back }, "← Back to the list")),
    el("h2", { id: "message-title", tabindex: "-1" }, "Message"), part("text"), part("now"), part("predictions"), part("labels"),
    el("div", { id: "message-acts", class: "row" },
      el("button", { type: "button", onclick: () => finder.open() }, "Label it"),
      el("button", { type: "button", id: "message-erase", onclick: erase }, "Erase it")),
    part("find", { class: "find", hidden: true }), el("p", { id: "message-note", class: "note", "aria-live": "polite" }));
  finder = new TypeAhead($("message-find"), "Label of this message", labelsOf, (name) => relabel(name));
  $("message-acts").hidden = true;
  $("message-one").hidden = false;
  $("message-title").focus({ preventScroll: true });
}

async function look(id) {
  try {
    const answer = await whole(id);
    if (id !== shown) return;
    known = answer;
    show();
    if (!reason) await explain(id);
  } catch (error) {
    if (id !== shown) return;
    const said = isUnknown(error) ? `There is no message ${id} among those that can be looked for. It may be older than what is kept, erased, or not read yet.` : `${error.message}. ${error.action}`;
    fill($("message-text"), el("p", { class: "empty" }, said));
  }
}

async function explain(id) {
  const part = known.text.slice(0, EXPLAINED).toWellFormed();
  try {
    const answer = await post("explain", { text: part, ...withFields(known.fields), features: FEATURES });
    if (id !== shown) return;
    reason = { ...answer, length: part.length };
    show();
  } catch (error) {
    if (id === shown) fill($("message-now"), el("p", { class: "note" }, error.code === "no-model" ? "Nothing was learned yet." : `Why is not known now: ${error.message}.`));
  }
}

const timeOf = (ts) => (ts === null || ts === undefined ? "" : date(typeof ts === "number" ? ts : Date.parse(ts)));

function show() {
  const { id, timestamp_ms: ms, text, fields, metadata, predictions, labels } = known;
  setText($("message-title"), `Message ${id}`);
  fill($("message-text"),
    el("p", { class: "note" }, `${timeOf(ms)} · ${many(Array.from(text).length, "character")}`),
    el("p", { class: "message", dir: "auto", tabindex: "0", role: "group", "aria-label": "The text" }, ...marked(text, reason)),
    fieldList(fields), Object.keys(metadata).length ? el("pre", { tabindex: "0", role: "region", "aria-label": "Metadata" }, JSON.stringify(metadata, null, 1)) : null);
  fill($("message-predictions"), el("h3", {}, "What was predicted"), list(predictions, (each) => [
    el("time", {}, timeOf(each.ts)), " ", el("b", { dir: "auto" }, each.label ?? "nothing"), each.label === null ? "" : ` ${score(each.score)}`,
    each.model_version ? ` by version ${each.model_version}` : ""], "Nothing was predicted for it."));
  fill($("message-labels"), el("h3", {}, "What its labels say"), list(labels, (each) => [
    el("time", {}, timeOf(each.ts_ms)), " ", each.op === "retract" ? "taken back" : el("b", { dir: "auto" }, each.label), each.op === "retract" && each.label ? `: ${each.label}` : "",
    each.source ? ` by ${each.source}` : "", each.weight && each.weight !== 1 ? `, weight ${each.weight}` : "", each.note ? `. Note: ${each.note}` : ""], "It has no label yet."));
  if (reason) showNow();
  $("message-acts").hidden = false;
}

function list(all, line, none) {
  return all.length ? el("ol", { class: "history" }, ...all.map((each) => el("li", {}, ...line(each)))) : el("p", { class: "note" }, none);
}

function showNow() {
  const best = ranked(reason.scores).slice(0, 3).map(([name, value]) => `${name} ${score(value)}`).join(", ");
  fill($("message-now"), el("h3", {}, "What the model says now, and why"),
    el("p", {}, best || "nothing"),
    el("ul", { class: "words", "aria-label": `Words that say most about ${reason.label}` },
      ...strongest(reason.features, reason.label, WORDS).map(({ text, field, share, known: isKnown }) => el("li", {},
        `${[field, text].filter(Boolean).join(": ")} `, el("b", { class: share < 0 ? "worse" : "better" }, withSign(share)), isKnown === false ? " (new)" : ""))));
}

async function relabel(name) {
  const id = shown;
  const last = known.labels.at(-1);
  const step = { kind: "relabel", message: id, label: name, before: last && last.op !== "retract" ? last.label : null };
  setText($("message-note"), "Sending …");
  try {
    const sent = await post("feedback", signed({ id: newId(), message_id: id, label: name }));
    countToday(1);
    remember(step);
    await follow(id, sent, `Labelled ${name}.`);
  } catch (error) {
    setText($("message-note"), `Not taken: ${error.message}. ${error.action}`);
  }
}

async function follow(id, sent, said) {
  setText($("message-note"), `${said} Learning …`);
  const { now } = await learned(sent, known);
  if (id !== shown) return;
  const undone = el("button", { type: "button", onclick: undo }, "Undo");
  fill($("message-note"), `${said} ${now ? `The model now says ${now.label}, ${score(now.score)}.` : "It is not learned yet."} `, undone);
  announce(said);
  reason = null;
  timer = setTimeout(() => look(id), NEXT_MS);
}

/** What was said before holds again, or nothing; the model keeps what it learned. */
async function takeBack({ message, label, before }) {
  const feedback = before === null ? { label, op: "retract" } : { label: before };
  countToday(-1);
  try {
    await post("feedback", signed({ message_id: message, ...feedback }));
    if (message !== shown) return;
    setText($("message-note"), before === null ? `Taken back: ${label}. The model has learned it, and keeps it until it is labelled again, or until driftline rebuild.` : `It is ${before} again.`);
    timer = setTimeout(() => look(message), NEXT_MS);
  } catch (error) {
    if (message === shown) setText($("message-note"), `Not taken back: ${error.message}. ${error.action}`);
  }
}

/** Erasing cannot be undone: it is asked twice. */
async function erase() {
  const id = shown;
  if (!isSure) {
    isSure = true;
    setText($("message-erase"), "Sure? Erase it and its labels for good");
    $("message-erase").classList.add("strong");
    return;
  }
  try {
    await remove(`messages/${encodeURIComponent(id)}`);
    fill($("message-text"), el("p", { class: "empty" }, "It will be erased: the message, its labels, its predictions and all that shows its text."));
    for (const part of ["now", "predictions", "labels"]) fill($(`message-${part}`));
    $("message-acts").hidden = true;
    $("message-back").focus();
  } catch (error) {
    setText($("message-note"), `Not erased: ${error.message}. ${error.action}`);
  }
}

// Which messages are there, and which of them were mistaken? Found by words, labels, sources and time.
//
// The address holds what is looked for, so that it can be sent and gone back to. A message opens in this room in full
// (message.js); what is found can be labelled as a whole (labelling/bulk.js).

import { address, go } from "../base/address.js";
import { $, announce, el, fill, setText } from "../base/dom.js";
import { fieldList } from "../base/fields.js";
import { count, cut, date, many, score } from "../base/format.js";
import { Poll } from "../base/poll.js";
import { Bulk } from "../labelling/bulk.js";
import { countOf, found, isOfBefore, lateness } from "../labelling/found.js";
import { closeMessage, openMessage, resetMessage, startMessage } from "./message.js";

const INPUTS = ["query", "state", "label", "predicted", "source", "since", "until", "order"];
const TIMES = ["since", "until"];
const DEFAULTS = { state: "all", order: "new" };
const TEXT = 300; // characters of a text in the list; the whole of it is a click away
let params = null; // what is looked for
let rows = []; // what was found so far
let answer = null; // the last page
let isMore = false; // somebody has gone on to another page
let asked = 0;
let place = 0; // how far the list was scrolled, while a message is open
let labels = [];
let bulk;

/** The newest messages come in by themselves while nobody searches or reads on. */
const poll = new Poll(2, async () => {
  if (!$("message-one").hidden || isMore || $("messages-bulk").contains(document.activeElement) || bulk.isBusy) return;
  await look();
});

export const messages = {
  name: "messages",
  title: "Messages",
  start() {
    bulk = new Bulk($("messages-bulk"), () => labels);
    startMessage(() => labels);
    $("messages-form").addEventListener("submit", (event) => {
      event.preventDefault();
      search();
    });
    for (const name of ["state", "order"]) $(`messages-${name}`).addEventListener("change", search);
    $("messages-clear").addEventListener("click", () => go("messages"));
    $("messages-more").addEventListener("click", more);
  },
  show(given) {
    const { id, ...filters } = given;
    const isOther = JSON.stringify(filters) !== JSON.stringify(params);
    if (isOther) {
      [params, rows, answer, isMore, place] = [filters, [], null, false, 0];
      for (const name of INPUTS) $(`messages-${name}`).value = TIMES.includes(name) ? local(filters[name]) : filters[name] ?? DEFAULTS[name] ?? "";
      fill($("messages-list"));
      bulk.set(null);
    }
    open(id);
    if (!poll.start() && (isOther || answer === null)) poll.run();
  },
  hide: () => poll.stop(),
  again: () => poll.run(),
  reset() {
    [rows, answer, isMore] = [[], null, false];
    fill($("messages-list"));
    bulk.set(null);
    resetMessage();
  },
  model: (model) => { labels = model.labels; },
};

/** Show a message in the list's place, or the list. */
function open(id) {
  const isOne = id !== undefined;
  const was = !$("message-one").hidden;
  if (isOne && !was) place = scrollY;
  for (const part of [$("messages-form"), $("messages-list").parentElement]) part.hidden = isOne;
  $("messages-count").hidden = isOne;
  if (isOne) openMessage(id, address("messages", params));
  else closeMessage();
  if (was && !isOne) scrollTo(0, place);
  else if (isOne) scrollTo(0, 0);
}

function search() {
  const wanted = Object.fromEntries(INPUTS.map((name) => [name, $(`messages-${name}`).value.trim()]));
  for (const name of TIMES) wanted[name] = wanted[name] ? Math.floor(new Date(wanted[name]).getTime() / 1000) : "";
  for (const [name, value] of Object.entries(DEFAULTS)) if (wanted[name] === value) wanted[name] = "";
  go("messages", wanted);
}

/** Seconds since 1970 as a field for a date and a time has them. */
function local(seconds) {
  const ms = 1000 * Number(seconds);
  if (!seconds || !Number.isFinite(ms)) return "";
  return new Date(ms - 60_000 * new Date(ms).getTimezoneOffset()).toISOString().slice(0, 16);
}

async function look() {
  const mine = ++asked;
  try {
    const page = await found(params);
    if (mine !== asked) return;
    [rows, answer] = [page.messages, page];
    show();
  } catch (error) {
    if (mine !== asked || error.isAway) throw error;
    if (error.status === 503 && rows.length) setText($("messages-note"), `Not looked up anew just now: ${error.message}. ${error.action}`);
    else refused(error);
  }
}

async function more() {
  const mine = ++asked;
  isMore = true;
  const wanted = { ...params, after: answer.next };
  try {
    const page = await found(wanted);
    if (mine !== asked) return;
    const first = page.messages[0];
    [rows, answer] = [[...rows, ...page.messages], { ...page, count: answer.count, count_is_exact: answer.count_is_exact }];
    show();
    announce(`${many(page.messages.length, "message")} more.`);
    if (first) $("messages-list").querySelector(`li:nth-child(${rows.indexOf(first) + 1}) a`)?.focus({ preventScroll: true });
  } catch (error) {
    if (mine !== asked) return;
    if (!isOfBefore(error, wanted)) return setText($("messages-note"), `No more now: ${error.message}. ${error.action}`);
    isMore = false;
    announce("The list was made anew: it begins with its first page.");
    poll.run();
  }
}

/** Say so where the key's role is too small, or the search is none; other errors pass by themselves. */
function refused(error) {
  setText($("messages-note"), "");
  fill($("messages-list"), el("p", { class: "empty" }, `${error.message}. ${error.action}`));
  $("messages-more").hidden = true;
  setText($("messages-count"), "");
}

function show() {
  const { next, count: n, count_is_exact: isExact, index } = answer;
  setText($("messages-count"), rows.length ? `${countOf(n, isExact)} found` : "");
  setText($("messages-note"), lateness(index) || held(index));
  fill($("messages-list"), rows.length ? el("ul", { class: "seen" }, ...rows.map(row)) : el("div", { class: "empty" }, ...empty()));
  $("messages-more").hidden = next === null;
  bulk.set(rows.length ? { params, count: n, isExact } : null);
}

function held({ indexed, limit, oldest_ms: ms }) {
  return `${many(indexed, "message")} can be searched, at most ${count(limit)}.${ms ? ` The oldest is of ${date(ms)}.` : ""}`;
}

function empty() {
  const late = lateness(answer.index);
  if (late) return [el("p", {}, `Nothing was found yet. ${late}`)];
  const isAll = Object.keys(params).length === 0;
  if (isAll) return [el("p", {}, "No message yet. POST one to /messages, or send a file: driftline send FILE --label-delay 100, with the --data or --log of the learner"), el("p", {}, el("a", { href: "#try" }, "Teach it a text"))];
  if (params.state === "mistakes") return [el("p", {}, "No mistake was found."), el("p", {}, el("a", { href: "#messages" }, "All messages"))];
  return [el("p", {}, "Nothing was found. Fewer words or filters find more; all words have to be in the text or its fields."), el("p", {}, el("a", { href: "#messages" }, "All messages"))];
}

function row(each) {
  const predicted = each.predicted === null ? "no prediction" : `${each.predicted} ${score(each.score)}`;
  return el("li", {},
    el("a", { class: "text", dir: "auto", href: address("messages", { ...params, id: each.id }) }, cut(each.text, TEXT) || "(empty)"),
    el("span", { class: "said-of" },
      el("span", { class: "time" }, date(each.timestamp_ms)),
      el("span", { class: "predicted" }, "said ", el("b", { dir: "auto" }, predicted)), truth(each)),
    fieldList(each.fields),
    each.note ? el("span", { class: "note" }, `Note: ${each.note}`) : null);
}

export function truth({ predicted, label, retracted, label_source: source, n_labels: n }) {
  const by = `${source ? ` by ${source}` : ""}${n > 1 ? `, ${count(n)} labels` : ""}`;
  if (label === null) return el("span", { class: "open" }, retracted ? `its label was taken back${by}` : "no label yet");
  if (predicted === null) return el("span", { class: "given" }, `is ${label}${by}`);
  return predicted === label ? el("span", { class: "given better" }, `✓ ${label}${by}`) : el("span", { class: "given worse" }, `✗ is ${label}${by}`);
}

// How well is each label found, and which are taken for which?

import { address } from "../base/address.js";
import { get } from "../base/api.js";
import { $, announce, choice, el, fill, setText } from "../base/dom.js";
import { count, many, share } from "../base/format.js";
import { Poll } from "../base/poll.js";
import { matching } from "../labelling/names.js";

const PAIRS = 20; // shown at first
const SIDE = 12; // of a matrix
const LONG = 40; // characters: a longer name has a wider column
const Z = 1.959964; // 95 % of a normal distribution lie within
const WHICH = [["confused", "the most confused"], ["common", "the commonest"], ["found", "those looked for"]];
const COLUMNS = [
  ["label", "Label", (each) => each.label], ["support", "Seen", (each) => each.support], ["predicted", "Predicted", (each) => each.predicted],
  ["precision", "Precision", (each) => each.precision], ["recall", "Recall", (each) => each.recall], ["f1", "F1", (each) => each.f1],
];
let known = null; // what the API said last
let sorted = { by: "support", down: true };
let written = "";
let which = WHICH[0][0];
let nPairs = PAIRS;

const poll = new Poll(3, async () => {
  known = await get("labels");
  show();
}, showRefusal);

export const labels = {
  name: "labels",
  title: "Labels",
  start() {
    choice($("confusion-which"), WHICH, which, (value) => {
      which = value;
      show();
    });
    $("labels-search").addEventListener("input", () => {
      written = $("labels-search").value;
      show();
      if (known) announce(many(wanted().length, "label"));
    });
  },
  show({ find }) {
    if (find !== undefined) $("labels-search").value = written = find;
    poll.start();
    show();
  },
  hide: () => poll.stop(),
  again: () => poll.run(),
  reset: () => { known = null; },
};

/** Say so where the key's role is too small; other errors pass by themselves. */
function showRefusal(error) {
  if (error.status !== 403) return;
  known = null;
  setText($("labels-over"), "");
  fill($("labels-table"), el("p", { class: "empty" }, `${error.message}. ${error.action}`));
  for (const id of ["labels-pairs", "confusion"]) fill($(id));
}

/** Return the labels that are looked for, in the order of the table. */
function wanted() {
  const byName = new Map(known.labels.map((each) => [each.label, each]));
  const found = matching([...byName.keys()], written).map((name) => byName.get(name));
  const [, , valueOf] = COLUMNS.find(([name]) => name === sorted.by);
  const way = sorted.down ? -1 : 1;
  return found.sort((a, b) => {
    const [x, y] = [valueOf(a), valueOf(b)];
    return way * (typeof x === "string" ? x.localeCompare(y) : x - y) || a.label.localeCompare(b.label);
  });
}

function show() {
  if (!known) return;
  const { labels: all, total, scored, confused } = known;
  const over = scored ?? all.reduce((sum, each) => sum + each.support, 0);
  setText($("labels-over"), all.length
    ? `Over ${many(over, "label")} that met a prediction, since this model's first one. Under a share stands its interval: 95 of 100 times the true value lies in it (Wilson).${total > all.length ? ` The ${count(all.length)} commonest of ${count(total)} labels.` : ""}`
    : "");
  fill($("labels-table"), all.length ? table(wanted()) : el("p", { class: "empty" }, "No label was learned yet. ", el("a", { href: "#try" }, "Teach one"), "."));
  showPairs(confused ?? { labels: [], pairs: [] });
  showMatrix(confused ?? { labels: [], pairs: [] });
}

function table(rows) {
  const head = COLUMNS.map(([by, name]) => {
    const isBy = sorted.by === by;
    return el("th", { scope: "col", class: by === "label" ? null : "number", "aria-sort": isBy ? (sorted.down ? "descending" : "ascending") : "none" },
      el("button", { type: "button", class: "quiet sort", onclick: () => sortBy(by), "data-by": by }, name, el("span", { "aria-hidden": "true" }, isBy ? (sorted.down ? " ▼" : " ▲") : "")));
  });
  const lines = rows.map((each) => el("tr", {},
    el("th", { scope: "row", dir: "auto" }, el("a", { href: address("messages", { label: each.label }) }, each.label)),
    number("Seen", count(each.support)), number("Predicted", count(each.predicted)),
    bar("Precision", each.precision, each.right, each.predicted), bar("Recall", each.recall, each.right, each.support),
    number("F1", each.support + each.predicted ? share(each.f1) : "–")));
  return el("div", { class: "scroll tall", tabindex: "0", role: "region", "aria-label": "Table of labels" },
    rows.length ? el("table", { class: "labels" }, el("thead", {}, el("tr", {}, ...head)), el("tbody", {}, ...lines)) : el("p", { class: "empty" }, "No label has that in its name."));
}

function sortBy(by) {
  sorted = { by, down: sorted.by === by ? !sorted.down : by !== "label" };
  show();
  $("labels-table").querySelector(`[data-by="${by}"]`)?.focus();
}

const number = (name, value) => el("td", { class: "number", "data-name": name }, value);

/** A share with what it may be off by. Where nothing was counted there is none. */
function bar(name, value, right, n) {
  if (!n) return el("td", { class: "number", "data-name": name }, "–");
  const [low, high] = wilson(right, n);
  return el("td", { class: "number", "data-name": name, title: `${count(right)} of ${count(n)}; ${share(low)} to ${share(high)}` },
    el("span", { class: "bar", "--share": value, "--low": low, "--high": high }, share(value), el("small", {}, ` ${share(low)}–${share(high)}`)));
}

/** The interval of a share of which `right` of `n` were counted (Wilson 1927). */
export function wilson(right, n) {
  const p = right / n;
  const middle = (p + (Z * Z) / (2 * n)) / (1 + (Z * Z) / n);
  const half = (Z / (1 + (Z * Z) / n)) * Math.sqrt((p * (1 - p)) / n + (Z * Z) / (4 * n * n));
  return [Math.max(0, middle - half), Math.min(1, middle + half)];
}

function showPairs({ labels: names, pairs, mistakes }) {
  const found = new Set(written ? matching(names, written) : names);
  const shown = pairs.filter(([label, predicted]) => found.has(names[label]) || found.has(names[predicted]));
  if (!shown.length) {
    fill($("labels-pairs"), el("p", { class: "empty" }, pairs.length ? "None of these labels was taken for another." : "No label was taken for another so far. Shows once labels have met predictions."));
    return;
  }
  const most = shown[0][2];
  const note = `${count(mistakes)} mistakes in all; these pairs have ${count(shown.reduce((sum, [, , n]) => sum + n, 0))} of them.`;
  fill($("labels-pairs"), el("p", { class: "note" }, note),
    el("ol", { class: "pairs" }, ...shown.slice(0, nPairs).map(([label, predicted, n]) => el("li", { "--share": n / most },
      el("a", { href: address("messages", { label: names[label], predicted: names[predicted], state: "mistakes" }) },
        el("b", { dir: "auto" }, names[label]), el("span", { class: "soft" }, " taken for "), el("b", { dir: "auto" }, names[predicted])), el("span", { class: "times" }, `${count(n)} ×`)))),
    shown.length > nPairs ? el("button", { type: "button", onclick: () => { nPairs += 5 * PAIRS; show(); } }, `More pairs (${count(shown.length - nPairs)})`) : null);
}

/** Return the labels whose matrix is shown. */
function chosen(names, pairs) {
  if (which === "confused") {
    const found = new Set();
    for (const [label, predicted] of pairs) {
      if (new Set([...found, label, predicted]).size > SIDE) continue;
      found.add(label).add(predicted);
    }
    return [...found].map((i) => names[i]);
  }
  const order = [...known.labels].sort((a, b) => b.support - a.support).map(({ label }) => label);
  return (which === "found" ? matching(order, written) : order).slice(0, SIDE);
}

function showMatrix({ labels: names, pairs }) {
  const shown = chosen(names, pairs);
  const at = new Map(shown.map((name, i) => [name, i]));
  const counts = shown.map(() => shown.map(() => 0));
  for (const each of known.labels) if (at.has(each.label)) counts[at.get(each.label)][at.get(each.label)] = each.right;
  for (const [label, predicted, n] of pairs) {
    const [i, k] = [at.get(names[label]), at.get(names[predicted])];
    if (i !== undefined && k !== undefined) counts[i][k] = n;
  }
  const isAny = counts.some((row) => row.some((n) => n > 0));
  const of = which === "found" && !written ? " Write a part of their names above." : "";
  setText($("confusion-note"), `A row is what it was, a column what was predicted; ${count(shown.length)} of ${many(known.labels.length, "label")}.${of}`);
  fill($("confusion"), isAny ? matrix(shown, counts) : el("p", { class: "empty" }, "Shows once labels have met predictions."));
}

function matrix(names, counts) {
  const supports = new Map(known.labels.map((each) => [each.label, each.support]));
  const head = el("tr", {}, el("td"), ...names.map((name) => el("th", { scope: "col", class: Array.from(name).length > LONG ? "long" : null, dir: "auto" }, name)));
  const rows = counts.map((row, i) => {
    const all = supports.get(names[i]) || 1;
    return el("tr", {}, el("th", { scope: "row", dir: "auto" }, names[i]), ...row.map((n, k) => el("td", { class: i === k ? "right" : "wrong", "--share": (n / all).toFixed(3) },
      n === 0 ? "·" : i === k ? count(n) : el("a", { href: address("messages", { label: names[i], predicted: names[k], state: "mistakes" }), "aria-label": `${count(n)}: ${names[i]} taken for ${names[k]}` }, count(n)))));
  });
  return el("table", { class: "matrix" }, el("thead", {}, head), el("tbody", {}, ...rows));
}

// How well is each label predicted, and which are taken for which?

import { $, el, fill } from "./dom.js";
import { count, share } from "./format.js";

const SHOWN = 12;

export function showLabels({ labels, total, confusion }) {
  fill($("labels-table"), labels.length ? table(labels.slice(0, SHOWN), total) : el("p", { class: "empty" }, "No label was learned yet."));
  const any = confusion.counts.some((row) => row.some((n) => n > 0));
  fill($("confusion"), any ? matrix(confusion) : el("p", { class: "empty" }, "Shows once labels have met predictions."));
}

function table(labels, total) {
  const rows = labels.map((each) => el("tr", {},
    el("th", { scope: "row" }, each.label), el("td", { class: "number" }, count(each.support)), bar(each.precision), bar(each.recall)));
  const head = ["Label", "Seen", "Precision", "Recall"].map((name, i) => el("th", { scope: "col", class: i ? "number" : null }, name));
  const more = total > labels.length ? el("p", { class: "note" }, `The ${labels.length} commonest of ${count(total)}.`) : null;
  return el("div", { class: "scroll" }, el("table", {}, el("thead", {}, el("tr", {}, ...head)), el("tbody", {}, ...rows)), more);
}

function bar(value) {
  return el("td", { class: "number" }, el("span", { class: "bar", "--share": value }, share(value)));
}

function matrix({ labels, counts }) {
  const head = el("tr", {}, el("td"), ...labels.map((label) => el("th", { scope: "col", title: label }, label)));
  const rows = counts.map((row, i) => {
    const all = row.reduce((a, b) => a + b, 0) || 1;
    return el("tr", {}, el("th", { scope: "row", title: labels[i] }, labels[i]),
      ...row.map((n, k) => el("td", { class: i === k ? "right" : "wrong", "--share": (n / all).toFixed(3) }, n ? count(n) : "·")));
  });
  return el("table", { class: "matrix" }, el("thead", {}, head), el("tbody", {}, ...rows));
}

// Which versions of the model are kept, and which one answers? Where the API keeps none, no table of them is shown.

import { get, post, remove } from "../base/api.js";
import { $, announce, el, fill, setText } from "../base/dom.js";
import { count, date, duration, many, share } from "../base/format.js";
import { Poll } from "../base/poll.js";

const HEADINGS = [["Version"], ["Made"], ["Labels learned", "number"], ["Accuracy then", "number"], ["Log loss then", "number"], ["Over", "number"], ["Kept"], ["Served", "number"]];
const isElsewhere = $("reference").dataset.port !== ""; // what changes something is asked of the admin port
let sure = null; // the version whose button was pressed once
let there = true;

const poll = new Poll(4, refresh);

export const models = {
  name: "models", title: "Models", start, show: () => poll.start(), hide: () => poll.stop(), again: () => poll.run(), model: showServed,
};

function start() {
  $("latest").addEventListener("click", () => act(() => remove("snapshots/active"), "The latest model answers again.")
    .then(() => $("snapshots-table").querySelector("button")?.focus())); // this one is gone
}

async function refresh() {
  if (!there) return;
  try {
    show(await get("snapshots"));
  } catch (error) {
    if (error.status === 404) there = false;
    if (error.status === 404 || error.status === 403) $("snapshots").hidden = true;
    else throw error;
  }
}

function show(answer) {
  const active = answer.active ?? answer.pinned_to ?? null;
  $("snapshots").hidden = false;
  $("latest").hidden = active === null || isElsewhere;
  const rows = answer.snapshots.map((each) => {
    const { accuracy, log_loss: loss } = each.recent ?? each;
    return el("tr", { class: each.version === active ? "active" : null },
      el("th", { scope: "row" }, each.version), el("td", {}, date(Date.parse(each.created ?? each.created_at))),
      el("td", { class: "number" }, count(each.labels_learned)), el("td", { class: "number" }, share(accuracy)),
      el("td", { class: "number" }, share(loss)),
      el("td", { class: "number" }, each.recent?.labels ? many(each.recent.labels, "label") : ""), el("td", {}, each.pinned ? `kept${each.name ? `: ${each.name}` : ""}` : ""),
      el("td", { class: "number" }, button(each.version, active)));
  });
  const head = HEADINGS.map(([name, kind]) => el("th", { scope: "col", class: kind ?? null }, name));
  fill($("snapshots-table"), rows.length
    ? el("div", { class: "scroll", tabindex: "0", role: "region", "aria-label": "Table of snapshots" }, el("table", {}, el("thead", {}, el("tr", {}, ...head)), el("tbody", {}, ...rows)))
    : el("p", { class: "empty" }, "None is kept yet. One is with each checkpoint, once something was learned."));
}

function button(version, active) {
  if (version === active) return "answers now";
  if (isElsewhere) return "";
  const pressed = () => {
    if (sure !== version) {
      sure = version;
      return refresh().then(() => $("snapshots-table").querySelector(".strong")?.focus());
    }
    sure = null;
    const change = () => post(`snapshots/${encodeURIComponent(version)}/activate`);
    return act(change, `Version ${version} answers now.`).then(() => $("latest").focus());
  };
  return el("button", { type: "button", class: sure === version ? "strong" : null, onclick: pressed }, sure === version ? "Sure? Serve it" : "Serve");
}

async function act(change, said) {
  try {
    await change();
    setText($("snapshots-note"), said);
  } catch (error) {
    setText($("snapshots-note"), `${error.message}. ${error.action}`);
  }
  announce($("snapshots-note").textContent);
  await refresh();
}

/** What answers, and what it was built from. */
function showServed(model) {
  const [age, unit] = duration(model.unchanged_seconds);
  const progress = model.progressive;
  const facts = [
    ["Version", model.version ?? "none yet: nothing was learned"],
    ["Kind", model.model ?? "–"],
    ["Since", model.version ? `${age} ${unit}` : "–"],
    ["Labels that it knows", `${count(model.labels.length)}${model.places ? ` of at most ${count(model.places)}` : ""}`],
    ["Built from", `${many(model.labels_learned, "label")} learned, ${count(model.corrected)} of them corrections; ${count(model.messages_seen)} messages seen`],
  ];
  if (progress?.labels) {
    facts.push(["Accuracy as served", `${share(progress.accuracy)} over all ${count(progress.labels)} labels that met a prediction; ${share(progress.recent.accuracy)} over the last ${count(progress.recent.labels)}`],
      ["Log loss as served", `${share(progress.log_loss)} over all; ${share(progress.recent.log_loss)} over the last ${count(progress.recent.labels)}`],
      ["Calibration error", `${share(progress.calibration_error)}: by so much the score is off the share that was right, in the mean`],
      ["Mean F1", `${share(progress.macro_f1)}, each label counted the same`]);
  }
  fill($("served"), ...facts.flatMap(([name, value]) => [el("dt", {}, name), el("dd", {}, value)]));
}

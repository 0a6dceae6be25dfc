// Which versions of the model are kept, and which one answers? Nothing is shown where the API has no such thing.

import { get, post, remove } from "./api.js";
import { $, announce, el, fill, setText } from "./dom.js";
import { count, date, share } from "./format.js";

const HEADINGS = [["Version"], ["Made"], ["Labels", "number"], ["Accuracy", "number"], ["Log loss", "number"], ["Kept"], ["Served", "number"]];
const isElsewhere = $("reference").dataset.port !== ""; // what changes something is asked of the admin port
let sure = null; // the version whose button was pressed once
let there = true;

export function start() {
  $("latest").addEventListener("click", () => act(() => remove("snapshots/active"), "The latest model answers again.")
    .then(() => $("snapshots-table").querySelector("button")?.focus())); // this one is gone
}

export async function refresh() {
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
      el("td", { class: "number" }, share(loss)), el("td", {}, each.pinned ? `kept${each.name ? `: ${each.name}` : ""}` : ""),
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

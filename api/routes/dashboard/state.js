// Is the learner at work, and what are the numbers of this moment?

import { $, el, fill, setText } from "./dom.js";
import { count, duration, many, rate, share } from "./format.js";
import { describe } from "./learner.js";

export function showState(model) {
  const said = describe(model.learner);
  let { text } = said;
  if (model.model) text += ` · ${model.model.replace(/&vectors_sha256=\w+/, "")}`; // that is for machines
  if (model.pinned_to) text += ` · version ${model.pinned_to} answers in the latest's place`;
  setText($("state-text"), text);
  $("state-dot").className = `dot ${said.mood}`;
}

export function showLost(error) {
  setText($("state-text"), error.status ? `${error.message} …` : "no answer from the API; trying again …");
  $("state-dot").className = "dot bad";
}

export function showTiles(model, history) {
  const progress = model.progressive;
  const known = progress && progress.recent.labels > 0;
  const lag = model.lag ? Object.values(model.lag).flatMap(Object.values).reduce((a, b) => a + b, 0) : null;
  const [delay, delayUnit] = duration(lastMean(history?.label_delay_seconds, 20));
  const [age, ageUnit] = duration(model.unchanged_seconds);
  fill($("tiles"),
    tile("Accuracy", known ? share(progress.recent.accuracy) : "–", "", known ? `${share(progress.accuracy)} over all` : "no label met a prediction"),
    tile("Log loss", known ? share(progress.recent.log_loss) : "–", "", known ? `${share(progress.log_loss)} over all${withoutNew(progress)}` : ""),
    tile("Messages", rate(lastMean(history?.messages_per_second, 10)), "/s", `${count(model.messages_seen)} seen`),
    tile("Labels", rate(lastMean(history?.labels_per_second, 10)), "/s", `${count(model.labels_learned)} learned${places(model)}`),
    tile("Lag", lag === null ? "–" : count(lag), "", `${many(model.pending, "waits", "wait")} for a label`),
    tile("Label delay", delay, delayUnit, "mean, of late"),
    tile("Model changed", age, ageUnit ? `${ageUnit} ago` : "", model.version ? `version ${model.version}` : "none yet"));
}

/** What the loss is without labels that were new when their message came: each of them costs as much as a hundred others. */
function withoutNew({ unknown, known_log_loss: loss }) {
  return unknown ? `, ${share(loss)} without new labels` : "";
}

/** How many labels the model has, of how many that it can have; and that there is no room for another one. */
function places({ places: most, places_taken: taken, places_left: left }) {
  if (!most) return "";
  return `; ${count(taken)} of ${count(most)} labels${left ? "" : ", none new is taken"}`;
}

function tile(name, value, unit, more) {
  return el("div", { class: "tile" },
    el("dt", {}, name), el("dd", {}, value, unit ? el("small", {}, ` ${unit}`) : null), el("dd", { class: "more", title: more }, more));
}

/** The mean of a series' last seconds, as each point counts. */
function lastMean(series, n) {
  if (!series) return null;
  let weight = 0;
  let total = 0;
  for (let i = Math.max(0, series.mean.length - n); i < series.mean.length; i++) {
    if (series.mean[i] === null) continue;
    weight += series.weight[i];
    total += series.weight[i] * series.mean[i];
  }
  return weight ? total / weight : null;
}

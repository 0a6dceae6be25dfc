// What is served now, how good is it, and what needs a person?

import { address } from "../base/address.js";
import { get } from "../base/api.js";
import { $, choice, el, fill, setText } from "../base/dom.js";
import { count, duration, many, rate, share } from "../base/format.js";
import { describe } from "../base/learner.js";
import { Poll } from "../base/poll.js";
import { showFlow } from "../charts/flow.js";
import { setAlarms, setAxis, showQuality } from "../charts/quality.js";
import { countOf, found } from "../labelling/found.js";

const RANGES = [["900", "15 min"], ["86400", "24 h"], ["5184000", "60 d"]];
const AXES = [["time", "by time"], ["labels", "by labels"]];
const POINTS = 300;
const RECENT_S = 86_400; // an alarm of this time needs somebody
let range = RANGES[0][0];
let model = null;
let alarms = [];
let requests = null;
let unlabelled = null; // {count, count_is_exact} of messages; null: the index does not know yet

async function refreshTiles() {
  const latest = await get("history?since=-30&points=30"); // for the numbers of this moment
  if (model) showTiles(model, latest);
}

async function refreshHistory() {
  const history = await get(`history?since=-${range}&points=${POINTS}`);
  showQuality(history, model?.progressive?.labels ?? 0);
  showFlow(history);
}

async function refreshWork() {
  alarms = (await get("drift")).recent;
  setAlarms(alarms);
  try {
    requests = (await get("label-requests?n=1")).open;
    const answer = await found({ state: "unlabelled", n: 1 });
    unlabelled = answer.index.ready ? answer : null;
  } catch (error) {
    if (error.status !== 403) throw error;
  }
  showWork();
}

const polls = [new Poll(1, refreshTiles), new Poll(2, refreshHistory), new Poll(3, refreshWork)];

export const now = {
  name: "now",
  title: "Now",
  start() {
    choice($("axes"), AXES, AXES[0][0], setAxis);
    choice($("ranges"), RANGES, range, (value) => {
      range = value;
      polls[1].run();
    });
  },
  show: () => polls.forEach((poll) => poll.start()),
  hide: () => polls.forEach((poll) => poll.stop()),
  again: () => polls.forEach((poll) => poll.run()),
  reset: () => { [requests, unlabelled] = [null, null]; },
  model(known) {
    const isFirst = model === null;
    model = known;
    if (isFirst && !$("room-now").hidden) polls[0].run();
    $("welcome").hidden = model.labels_learned > 0;
    showWork();
  },
};

export function showState(known) {
  const said = describe(known.learner);
  let { text } = said;
  if (known.model) text += ` · ${known.model.replace(/&vectors_sha256=\w+/, "")}`; // that is for machines
  if (known.pinned_to) text += ` · version ${known.pinned_to} answers in the latest's place`;
  setText($("state-text"), text);
  $("state-dot").className = `dot ${said.mood}`;
}

export function showLost(error) {
  setText($("state-text"), error.status ? `${error.message} …` : "no answer from the API; trying again …");
  $("state-dot").className = "dot bad";
}

/** Say what needs a person, each with the place where it is done. */
function showWork() {
  if (!model) return;
  const said = describe(model.learner);
  const late = alarms.filter((each) => each.change === "worse" && Date.now() - each.timestamp_ms < 1000 * RECENT_S);
  const waits = unlabelled?.count ?? model.pending;
  const wait = waits === 1 ? "1 message waits" : `${countOf(waits, unlabelled?.count_is_exact ?? true)} messages wait`;
  fill($("todo"), ...[
    said.mood === "good" ? null : item(said.mood === "bad" ? "worse" : "", `The learner: ${said.text}.`, whatNext(said.mood), null),
    model.pinned_to ? item("", `Version ${model.pinned_to} answers in the latest's place.`, "", link("models", {}, "Models")) : null,
    late.length ? item("worse", `${many(late.length, "alarm")} in 24 hours: predictions got worse.`, "", link("alarms", {}, "See what changed")) : null,
    requests ? item("", `${many(requests, "message")} you are asked about ${requests === 1 ? "waits" : "wait"} for a label.`, "", link("label", {}, "Label them")) : null,
    waits ? item("", `${wait} without a label.`, "", link("label", { from: "new" }, "Label the backlog")) : null,
  ].filter(Boolean));
  if (!$("todo").childElementCount) fill($("todo"), item("better", "Nothing needs you now.", "", link("try", {}, "Try a text")));
}

function whatNext(mood) {
  if (!model.learner) return "Start one: driftline up, or driftline learn beside this.";
  return mood === "bad" ? "driftline status says more; what was served is served on." : "It goes on by itself.";
}

const link = (room, params, name) => el("a", { href: address(room, params) }, name);

function item(mood, text, more, to) {
  return el("li", { class: mood || null }, el("span", {}, text, more ? ` ${more}` : ""), to);
}

function showTiles(known, history) {
  const progress = known.progressive;
  const any = progress && progress.recent.labels > 0;
  const lag = known.lag ? Object.values(known.lag).flatMap(Object.values).reduce((a, b) => a + b, 0) : null;
  const [delay, delayUnit] = duration(lastMean(history?.label_delay_seconds, 20));
  const [age, ageUnit] = duration(known.unchanged_seconds);
  const over = any ? `over the last ${many(progress.recent.labels, "label")}` : "no label met a prediction";
  const all = (value) => (any ? `; ${share(value)} over all ${count(progress.labels)}` : "");
  fill($("tiles"),
    tile("Accuracy of late", any ? share(progress.recent.accuracy) : "–", "", over + all(progress?.accuracy)),
    tile("Log loss of late", any ? share(progress.recent.log_loss) : "–", "", any ? over + all(progress.log_loss) + withoutNew(progress) : ""),
    tile("Messages", rate(lastMean(history?.messages_per_second, 10)), "/s", `over 10 s; ${count(known.messages_seen)} seen`),
    tile("Labels", rate(lastMean(history?.labels_per_second, 10)), "/s", `over 10 s; ${count(known.labels_learned)} learned${places(known)}`),
    tile("Lag", lag === null ? "–" : count(lag), "", `records not yet taken; ${many(known.pending, "message waits", "messages wait")} for a label`),
    tile("Label delay", delay, delayUnit, "mean over 20 s"),
    tile("Model changed", age, ageUnit ? `${ageUnit} ago` : "", known.version ? `version ${known.version}` : "none yet"));
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
    el("dt", {}, name), el("dd", {}, value, unit ? el("small", {}, ` ${unit}`) : null), el("dd", { class: "more" }, more));
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

// How do the parts of the page fit together? Each asks for what it shows; nothing is decided here.

import { get, urlOf } from "./api.js";
import { $, choice, setText } from "./dom.js";
import { showFlow } from "./flow.js";
import * as key from "./key.js";
import { showLabels } from "./labels.js";
import * as outbox from "./outbox.js";
import { poll } from "./poll.js";
import { showAlarms, showQuality } from "./quality.js";
import * as queue from "./queue.js";
import * as recent from "./recent.js";
import * as snapshots from "./snapshots.js";
import { showLost, showState, showTiles } from "./state.js";
import * as trial from "./try.js";

const RANGES = [["900", "15 min"], ["86400", "24 h"], ["5184000", "60 d"]];
const POINTS = 300;
let range = RANGES[0][0];
let lost = false; // the API was away
let latest = null; // the last minute's history, for the numbers of this moment

async function refreshModel() {
  const [model, history] = await Promise.all([get("model"), get("history?since=-30&points=30")]);
  latest = history;
  showState(model);
  showTiles(model, latest);
  queue.setModel(model);
  trial.setModel(model);
  outbox.kick();
  $("welcome").hidden = model.labels_learned > 0;
  if (!lost) return;
  lost = false;
  again.slice(1).forEach((run) => run()); // what is asked seldom would show old numbers for long
}

function showTrouble(error) {
  lost = error.status === 0;
  showLost(error);
}

async function refreshHistory() {
  const history = await get(`history?since=-${range}&points=${POINTS}`);
  showQuality(history);
  showFlow(history);
}

const reference = $("reference");
if (reference.dataset.port) reference.href = `${location.protocol}//${location.hostname}:${reference.dataset.port}/docs`;
queue.start();
trial.start();
recent.start();
snapshots.start();
setText($("welcome-send"), `curl ${urlOf("messages")} -d '{"id": "m1", "text": "You won a prize, call now"}'\ncurl ${urlOf("feedback")} -d '{"message_id": "m1", "label": "spam"}'`);

const again = [
  poll(1, refreshModel, showTrouble),
  poll(2, refreshHistory),
  poll(2, recent.refresh, recent.showRefusal),
  poll(1.5, queue.refresh, queue.showRefusal),
  poll(3, async () => showAlarms(await get("drift"))),
  poll(3, async () => showLabels(await get("labels"))),
  poll(4, snapshots.refresh),
];
key.start((isOther) => {
  if (isOther) queue.reset();
  again.forEach((run) => run());
});
choice($("ranges"), RANGES, range, (value) => {
  range = value;
  again[1]();
});

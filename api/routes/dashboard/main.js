// Which room is seen, and what holds in all of them: the state of the learner, the key, and labels on their way.
//
// A room is a module: {name, title, start(), show(params), hide(), model(model)}. `start` is called once, before all
// else; `show` when the room is gone to, and each time its address changes; `hide` when it is left. Only the room that
// is seen asks the API for anything; beside it the state's line does, and labels are sent from wherever one is.

import { get, urlOf } from "./base/api.js";
import { go, read } from "./base/address.js";
import { $, announce, el, fill, setText } from "./base/dom.js";
import * as key from "./base/key.js";
import { paint } from "./base/kept.js";
import { Poll } from "./base/poll.js";
import * as outbox from "./labelling/outbox.js";
import { many } from "./base/format.js";
import { forget, whenChanged } from "./labelling/trail.js";
import { alarms } from "./rooms/alarms.js";
import { label } from "./rooms/label.js";
import { labels } from "./rooms/labels.js";
import { messages } from "./rooms/messages.js";
import { models } from "./rooms/models.js";
import { now, showLost, showState } from "./rooms/now.js";
import { settings } from "./rooms/settings.js";
import { trial } from "./rooms/try.js";

const ROOMS = new Map([now, label, messages, labels, models, alarms, trial, settings].map((room) => [room.name, room]));
const OFFERED = 500; // labels, where one is written
let here = null; // the room that is seen
let model = null;
let lost = false; // the API was away

async function refreshModel() {
  model = await get("model");
  showState(model);
  fill($("known-labels"), ...model.labels.slice(0, OFFERED).map((name) => el("option", { value: name })));
  for (const room of ROOMS.values()) room.model?.(model);
  outbox.kick();
  if (lost) here.again?.(); // what is asked seldom would show old numbers for long
  lost = false;
}

function showTrouble(error) {
  lost = error.status === 0;
  showLost(error);
}

const state = new Poll(1, refreshModel, showTrouble);

/** Show the room that the address names; where it names none, the first. */
function enter() {
  const { room: name, params } = read(location.hash);
  if (!ROOMS.has(name)) return go("now", {}, { correction: true });
  const room = ROOMS.get(name);
  const [came, isNew] = [here !== null, room !== here];
  if (isNew) {
    here?.hide?.();
    for (const each of ROOMS.keys()) $(`room-${each}`).hidden = each !== name;
    for (const link of $("rooms").querySelectorAll("a")) {
      if (link.hash === `#${name}`) link.setAttribute("aria-current", "page");
      else link.removeAttribute("aria-current");
    }
    $("rooms").querySelector("[aria-current]").scrollIntoView({ block: "nearest", inline: "nearest" });
    here = room;
  }
  document.title = `${room.title} · Driftline`;
  room.show(params);
  if (!isNew) return;
  scrollTo(0, 0);
  if (came) $(`title-${name}`).focus({ preventScroll: true }); // a screen reader says where one is
}

/** Labels that wait for the API are told of in every room. */
function showAway() {
  const n = outbox.nWaiting();
  $("away").hidden = !n;
  setText($("away"), n ? `The API does not answer: ${many(n, "label is", "labels are")} sent once it does. Keep this tab open.` : "");
}

paint();
const reference = $("reference");
if (reference.dataset.port) reference.href = `${location.protocol}//${location.hostname}:${reference.dataset.port}/docs`;
$("skip").addEventListener("click", (event) => {
  event.preventDefault(); // the address is the room's
  $(`title-${here.name}`).focus();
});
setText($("welcome-send"), `curl ${urlOf("messages")} -d '{"id": "m1", "text": "You won a prize, call now"}'\ncurl ${urlOf("feedback")} -d '{"message_id": "m1", "label": "spam"}'`);
for (const room of ROOMS.values()) room.start();
whenChanged(showAway);
addEventListener("hashchange", enter);
enter();
state.start();
key.start((isOther) => {
  if (isOther) for (const room of ROOMS.values()) room.reset?.();
  state.run();
  here.again?.();
  if (isOther) announce("Another key is used now.");
}, forget);

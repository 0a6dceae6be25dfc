// When did predictions get worse or better, from what to what, and where are the messages of that time?

import { address } from "../base/address.js";
import { get } from "../base/api.js";
import { $, el, fill, setText } from "../base/dom.js";
import { count, date, many, score } from "../base/format.js";
import { Poll } from "../base/poll.js";

const AROUND_S = 1800; // messages of so long before and after
let opened = null; // the alarm that the address names

const poll = new Poll(3, async () => show(await get("drift")));

export const alarms = {
  name: "alarms",
  title: "Alarms",
  start() {},
  show({ at }) {
    opened = at ?? null;
    if (!poll.start()) poll.run();
  },
  hide: () => poll.stop(),
  again: () => poll.run(),
};

function show(drift) {
  const newest = drift.recent.toReversed();
  const labels = Object.keys(drift.by_label).length;
  setText($("alarms-over"), drift.alarms
    ? `${many(drift.alarms, "alarm")} since the first label; over all labels ${count(drift.overall.worse)} worse and ${count(drift.overall.better)} better, ${many(labels, "label")} had one of its own. The last ${count(newest.length)} are here.`
    : "");
  fill($("alarms"), ...(newest.length ? newest.map(card) : [el("div", { class: "card empty" },
    el("p", {}, "No drift alarm so far. One comes when the log loss of predictions as served changes by more than chance."),
    el("p", {}, el("a", { href: address("now") }, "See accuracy over time")))]));
  const line = opened === null ? null : document.getElementById(`alarm-${opened}`);
  if (line) {
    line.open = true;
    line.scrollIntoView({ block: "nearest" });
    opened = null;
  }
}

const idOf = ({ partition, offset, label }) => `${partition}-${offset}${label === null ? "" : `-${label}`}`;

/** An alarm can be opened, and stays as it is while others come. */
function card(alarm, i) {
  const { change, label, loss_before: before, loss_after: after, labels_before: nBefore, labels_after: nAfter, timestamp_ms: ms } = alarm;
  const worse = change === "worse";
  const id = `alarm-${idOf(alarm)}`;
  const [since, until] = [Math.floor(ms / 1000) - AROUND_S, Math.ceil(ms / 1000) + AROUND_S];
  const about = label === null ? {} : { label };
  const link = (name, params) => el("a", { href: address("messages", params) }, name);
  const details = el("details", { id, class: "card alarm" },
    el("summary", {}, el("b", { class: change }, worse ? "▼ worse" : "▲ better"), " ", el("span", {}, label === null ? "overall" : label), " ", el("time", { class: "soft" }, date(ms))),
    el("dl", { class: "facts" },
      el("dt", {}, "Log loss before"), el("dd", {}, `${score(before)} over ${many(nBefore, "label")}`),
      el("dt", {}, "Log loss after"), el("dd", {}, `${score(after)} over ${many(nAfter, "label")}`),
      el("dt", {}, "Seen at"), el("dd", {}, `label ${count(alarm.at_label)}, ${date(ms)}; ${alarm.topic}/${alarm.partition} offset ${alarm.offset}`)),
    el("p", { class: "links" }, link("Mistakes around it", { ...about, state: "mistakes", since, until }), " ",
      link("Messages before", { ...about, since, until: Math.floor(ms / 1000) }), " ", link("Messages after", { ...about, since: Math.floor(ms / 1000), until })));
  const there = document.getElementById(id);
  details.open = there ? there.open : i === 0 && opened === null;
  return details;
}

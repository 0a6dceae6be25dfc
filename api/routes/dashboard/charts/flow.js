// How much comes in, how late is it, and does the learner keep up?

import { alone, Chart, colour, common, timeAxis, valueAxis, withGaps } from "./chart.js";
import { $ } from "../base/dom.js";
import { duration, many, rate } from "../base/format.js";

const NOTHING = "Nothing yet.";
const fromZero = (_, __, most) => [0, Math.max(most ?? 0, 1) * 1.1];

function options(series) {
  return () => ({
    ...common(),
    scales: { x: { time: true }, y: { range: fromZero } },
    axes: [timeAxis(), valueAxis({ values: (_, ticks) => ticks.map((x) => (x >= 1e4 ? `${x / 1000}k` : x >= 10 ? x.toFixed(0) : String(x))) })],
    series: [{}, ...series()],
  });
}

const line = (name, more = {}) => ({ stroke: colour(name), width: 1.8, points: alone(colour(name)), ...more });
const rates = new Chart($("rates-chart"), options(() => [line("accent"), line("second", { dash: [5, 4] })]));
const lag = new Chart($("lag-chart"), options(() => [line("accent", { fill: `${colour("accent")}22` })]));
const delay = new Chart($("delay-chart"), options(() => [line("accent"), line("soft", { width: 1, dash: [2, 3] })]));

export function showFlow(history) {
  const { period_seconds: period, time } = history;
  const columns = (...series) => withGaps(period, time, ...series);
  const { messages_per_second: messages, labels_per_second: labels, lag: behind, label_delay_seconds: late } = history;
  rates.show(columns(messages.mean, labels.mean), `Now ${rate(messages.mean.at(-1))} messages and ${rate(labels.mean.at(-1))} labels a second.`, NOTHING);
  lag.show(columns(behind.max), `Lag now ${many(behind.mean.at(-1) ?? 0, "record")}, at most ${many(Math.max(0, ...behind.max), "record")}.`, NOTHING);
  const [value, unit] = duration(late.mean.findLast((x) => x !== null) ?? null);
  const known = late.mean.some((x) => x !== null);
  delay.show(known ? columns(late.mean, late.max) : [[]], `Label delay now ${value} ${unit} in the mean.`, "No label has met its message yet.");
}

// How good were the predictions as served, and when did that change?

import { Chart, colour, common, smooth, timeAxis, valueAxis, withGaps } from "./chart.js";
import { $, el, fill } from "../base/dom.js";
import { count, share, time } from "../base/format.js";

let alarms = [];
let shown = null; // what the chart has
let by = "time"; // what is told from left to right: time, or the number of labels
let history = null;
let scored = 0; // labels that had met a prediction by the history's end

const chart = new Chart($("quality-chart"), () => ({
  ...common(),
  scales: {
    x: { time: by === "time" },
    share: { range: (_, least) => [Math.max(0, Math.min(0.9, Math.floor((least ?? 0) * 10 - 0.2) / 10)), 1.004] },
    loss: { range: (_, __, most) => [0, Math.min(Math.max(most ?? 0, 0.2) * 1.15, 3)] },
  },
  series: [
    {},
    { scale: "share", stroke: "transparent", points: { show: true, size: 3, width: 0, fill: `${colour("accent")}66` } },
    { scale: "share", stroke: colour("accent"), width: 2.2, points: { show: false } },
    { scale: "loss", stroke: colour("second"), width: 1.6, dash: [5, 4], points: { show: false } },
  ],
  axes: [
    by === "time" ? timeAxis() : { ...timeAxis(), values: (_, ticks) => ticks.map(count) },
    valueAxis({ scale: "share", values: (_, ticks, __, ___, step) => ticks.map((x) => x.toFixed(digits(step))) }),
    valueAxis({ scale: "loss", side: 1, size: 34, grid: { show: false }, stroke: colour("second") }),
  ],
  hooks: { draw: [drawAlarms], setCursor: [(plot) => legend(plot.cursor.idx)] },
}));

/** How many digits behind the point the steps of an axis need. */
const digits = (step) => Math.max(1, String(step).split(".")[1]?.length ?? 0);

/** Choose what is told from left to right: "time" or "labels". */
export function setAxis(value) {
  by = value;
  if (!history) return;
  showQuality(history, scored);
  chart.renew();
}

/** Show how good predictions were; `labels` is how many of them had met a label by now. */
export function showQuality(given, labels) {
  [history, scored] = [given, labels];
  const { period_seconds: period, time: times, accuracy, log_loss: loss } = history;
  const half = Math.max(4, Math.round(times.length / 24));
  const known = accuracy.weight.some((weight) => weight > 0);
  const [lineOf, lossOf] = [smooth(accuracy, half), smooth(loss, half)];
  const data = by === "time" ? withGaps(period, times, accuracy.mean, lineOf, lossOf) : byLabels(accuracy, lineOf, lossOf);
  shown = { data, lossOf, lineOf };
  chart.show(known ? data : [[]], summary(), "No label has met a prediction in this time. Send messages, and their labels later.");
  if (chart.plot?.cursor.idx == null) legend(null);
}

/** The same points, each where its last label is: those without one have no place. */
function byLabels({ mean, weight }, ...series) {
  const all = weight.reduce((sum, n) => sum + n, 0);
  let at = Math.max(0, scored - all);
  const out = [[], ...[mean, ...series].map(() => [])];
  weight.forEach((n, i) => {
    at += n;
    if (n > 0) [at, mean[i], ...series.map((values) => values[i])].forEach((value, k) => out[k].push(value));
  });
  return out;
}

/** Mark alarms in the chart. */
export function setAlarms(known) {
  alarms = known;
  chart.plot?.redraw();
}

function legend(index) {
  if (!shown) return;
  const last = shown.data[0].length - 1;
  const at = index ?? last;
  const [times, , accuracy, loss] = shown.data;
  fill($("quality-legend"),
    el("span", {}, el("span", { class: "swatch" }), "accuracy as served ", el("b", {}, share(accuracy[at] ?? null))),
    el("span", {}, el("span", { class: "swatch second" }), "log loss ", el("b", {}, share(loss[at] ?? null))),
    el("span", {}, index == null ? "drift marks: " : by === "time" ? time(1000 * times[at]) : `label ${count(times[at])}`,
      index == null ? el("b", { class: "worse" }, "▼ worse ") : null, index == null ? el("b", { class: "better" }, "▲ better") : null));
}

function summary() {
  const known = shown.lineOf.filter((x) => x !== null);
  if (!known.length) return "";
  const least = Math.min(...known);
  return `Accuracy over time: ${share(known[0])} at first, ${share(known.at(-1))} now, ${share(least)} at its lowest; ` +
    `log loss ${share(shown.lossOf.findLast((x) => x !== null))} now.`;
}

function drawAlarms(plot) {
  const { ctx, bbox } = plot;
  ctx.save();
  for (const alarm of alarms) {
    const at = by === "time" ? alarm.timestamp_ms / 1000 : alarm.at_label;
    if (at < plot.scales.x.min || at > plot.scales.x.max) continue;
    const x = Math.round(plot.valToPos(at, "x", true));
    const size = 4.5 * devicePixelRatio;
    ctx.strokeStyle = ctx.fillStyle = colour(alarm.change);
    ctx.globalAlpha = alarm.label === null ? 0.9 : 0.4;
    ctx.lineWidth = devicePixelRatio;
    ctx.setLineDash([2 * devicePixelRatio, 3 * devicePixelRatio]);
    ctx.beginPath();
    ctx.moveTo(x, bbox.top);
    ctx.lineTo(x, bbox.top + bbox.height);
    ctx.stroke();
    const [tip, base] = alarm.change === "worse" ? [size, -size / 2] : [-size / 2, size];
    ctx.beginPath();
    ctx.moveTo(x, bbox.top + tip);
    ctx.lineTo(x - size, bbox.top + base);
    ctx.lineTo(x + size, bbox.top + base);
    ctx.fill();
  }
  ctx.restore();
}

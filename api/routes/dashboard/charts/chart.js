// How is a series over time drawn? By uPlot, in the page's own colours, as wide as there is room.

import { el } from "../base/dom.js";
import { whenSet } from "../base/kept.js";
import { tick } from "../base/format.js";

const dark = matchMedia("(prefers-color-scheme: dark)");
export const colour = (name) => getComputedStyle(document.documentElement).getPropertyValue(`--${name}`).trim();

export class Chart {
  /**
   * @param figure   where it is drawn; its label says what a screen reader is to say
   * @param options  a function, called anew when the colours change: {series, axes, scales, hooks}
   */
  constructor(figure, options) {
    Object.assign(this, { figure, options, data: null, plot: null });
    new ResizeObserver(() => figure.clientWidth && this.plot?.setSize(this.#size())).observe(figure);
    dark.addEventListener("change", () => this.#draw());
    whenSet(() => this.#draw());
  }

  /** Show data: [times, ...series], null where there is none. Where all is empty, `empty` is said instead. */
  show(data, label, empty) {
    this.data = data;
    this.figure.setAttribute("aria-label", data[0].length ? label : empty);
    if (!data[0].length || !window.uPlot) {
      this.plot?.destroy();
      this.plot = null;
      this.figure.replaceChildren(el("p", { class: "none" }, window.uPlot ? empty : label));
    } else if (this.plot) this.plot.setData(data);
    else this.#draw();
  }

  /** Draw it anew: its options are other ones now. */
  renew() {
    this.#draw();
  }

  #draw() {
    if (!this.data?.[0].length) return;
    this.plot?.destroy();
    this.figure.replaceChildren();
    this.plot = new window.uPlot({ ...this.#size(), ...this.options() }, this.data, this.figure);
  }

  #size() {
    return { width: Math.max(120, this.figure.clientWidth), height: this.figure.clientHeight };
  }
}

const FONT = "11px system-ui, sans-serif";

export const timeAxis = () => ({
  stroke: colour("soft"), font: FONT, size: 24, space: 70, gap: 4,
  values: (_, ticks, __, ___, step) => ticks.map((time) => tick(1000 * time, step)),
  grid: { show: false }, ticks: { stroke: colour("line"), width: 1, size: 4 },
});

export const valueAxis = (more = {}) => ({
  stroke: colour("soft"), font: FONT, size: 40, space: 34, gap: 4,
  grid: { stroke: colour("line"), width: 1 }, ticks: { show: false }, ...more,
});

export const common = () => ({
  legend: { show: false },
  cursor: { drag: { x: false, y: false }, points: { size: 6 }, y: false },
  padding: [8, 14, 0, 0],
});

/** Points where a value stands alone: no line goes to it. */
export const alone = (fill) => ({
  show: true, size: 4, width: 0, fill,
  filter: (plot, series) => {
    const values = plot.data[series];
    return values.flatMap((value, i) => (value !== null && values[i - 1] == null && values[i + 1] == null ? [i] : []));
  },
});

/** Put nulls where points are missing, so that no line goes over a time in which nothing was known. */
export function withGaps(period, times, ...series) {
  const out = [[], ...series.map(() => [])];
  times.forEach((time, i) => {
    if (i && time - times[i - 1] > 5 * period) {
      out[0].push(times[i - 1] + period);
      series.forEach((_, k) => out[k + 1].push(null));
    }
    out[0].push(time);
    series.forEach((values, k) => out[k + 1].push(values[i]));
  });
  return out;
}

/** A mean that forgets: each point counts by its weight, half as much `half` points later. */
export function smooth({ mean, weight }, half) {
  const keep = 0.5 ** (1 / half);
  let total = 0;
  let all = 0;
  return mean.map((value, i) => {
    total *= keep;
    all *= keep;
    if (value !== null) {
      total += value * weight[i];
      all += weight[i];
    }
    return all > 1e-6 ? total / all : null;
  });
}

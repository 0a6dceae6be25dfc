// How are numbers and times written?

const whole = new Intl.NumberFormat("en");
const of24 = { hour: "2-digit", minute: "2-digit", hourCycle: "h23" };
const clock = new Intl.DateTimeFormat(undefined, { ...of24, second: "2-digit" });
const short = new Intl.DateTimeFormat(undefined, of24);
const dated = new Intl.DateTimeFormat(undefined, { month: "short", day: "numeric", ...of24 });
const day = new Intl.DateTimeFormat(undefined, { month: "short", day: "numeric" });

export const NONE = "–";
export const count = (n) => whole.format(Math.round(n));
/** A number of things: 1 label, 2 labels. */
export const many = (n, one, more = `${one}s`) => `${count(n)} ${Math.round(n) === 1 ? one : more}`;
export const share = (x) => (x === null || x === undefined ? NONE : x.toFixed(3));
export const score = (x) => (x >= 0.995 && x < 1 ? "0.99+" : x.toFixed(2));
export const signed = (x) => (x < 0 ? "−" : "+") + Math.abs(x).toFixed(2);
export const time = (ms) => clock.format(ms);
export const date = (ms) => dated.format(ms);

/** A time on an axis, no longer than the steps between its ticks need. */
export const tick = (ms, stepS) => (stepS < 60 ? clock : stepS < 86400 ? short : day).format(ms);

/** Labels with their scores, the likeliest first: an object has those that are numbers in an order of its own. */
export const ranked = (scores) => Object.entries(scores).sort(([, a], [, b]) => b - a);

/** A chance, in percent, with two digits that mean something. */
export function percent(x) {
  const of100 = 100 * x;
  return (of100 >= 10 ? of100.toFixed(0) : of100.toPrecision(2)) + "\u00a0%"; // they stay on one line
}

export function rate(x) {
  if (x === null || x === undefined) return NONE;
  return x >= 100 ? count(x) : x.toFixed(1);
}

/** Seconds as a number and its unit. */
export function duration(s) {
  if (s === null || s === undefined) return [NONE, ""];
  if (s < 0.0995) return [String(Math.round(s * 1000)), "ms"];
  if (s < 99.5) return [s < 9.95 ? s.toFixed(1) : s.toFixed(0), "s"];
  if (s < 5400) return [(s / 60).toFixed(0), "min"];
  return s < 129600 ? [(s / 3600).toFixed(1), "h"] : [(s / 86400).toFixed(1), "d"];
}

export function cut(text, most) {
  const characters = Array.from(text);
  return characters.length > most ? characters.slice(0, most - 1).join("") + "…" : text;
}

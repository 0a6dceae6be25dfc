// What was done in this tab? Each step can be taken back, the last one first, also after a reload.
//
// Kept as long as the tab, and no longer than its key: {labeller, done, back, unsent, shown, today}.
//   done    steps, the newest last: {kind, ...}, each taken back by whoever has said how (`whenUndone`)
//   back    what is to be labelled before all else: {request, kept, changes}, see queue.js
//   unsent  labels on their way to the API, see outbox.js
//   shown   the ids of the messages in the queue, in their order
//   today   {day, n}: how many were labelled on that day

const KEY = "driftline-trail";
const STEPS = 300; // that are remembered
const undoers = {};
const listeners = [];
export const trail = load();

function blank() {
  return { labeller: `tab-${random()}`, done: [], back: [], unsent: [], shown: [], today: { day: "", n: 0 } };
}

function load() {
  const fresh = blank();
  try {
    const kept = JSON.parse(sessionStorage.getItem(KEY) ?? "{}");
    const whole = typeof kept.labeller === "string" && [kept.done, kept.back, kept.unsent, kept.shown].every(Array.isArray);
    return whole ? { ...fresh, ...kept } : fresh;
  } catch {
    return fresh;
  }
}

function random() {
  return Array.from(crypto.getRandomValues(new Uint8Array(6)), (byte) => byte.toString(16).padStart(2, "0")).join("");
}

/** Keep what is there now, and show it. */
export function changed() {
  try {
    sessionStorage.setItem(KEY, JSON.stringify(trail));
  } catch {
    // No room, or none allowed: then a reload forgets it.
  }
  for (const show of listeners) show();
}

/** Call a function after each change. */
export const whenChanged = (show) => listeners.push(show);

/** Say how a kind of step is taken back. */
export function whenUndone(kind, undo) {
  undoers[kind] = undo;
}

export function remember(step) {
  trail.done.push(step);
  if (trail.done.length > STEPS) trail.done.shift();
  changed();
}

/** Count labels of today; below 0: those that were taken back. */
export function countToday(n) {
  trail.today = { day: today(), n: Math.max(0, labelledToday() + n) };
  changed();
}

export const labelledToday = () => (trail.today.day === today() ? trail.today.n : 0);
const today = () => new Date().toDateString();

/** Take the last step back, whatever it was. */
export function undo() {
  const step = trail.done.pop();
  if (!step) return;
  undoers[step.kind]?.(step);
  changed();
}

/** Another person labels here now: nothing of the one before is shown to him, or sent with his key. */
export function forget() {
  Object.assign(trail, blank());
  changed();
}

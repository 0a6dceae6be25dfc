// What is the learner doing, in words?
//
// `mood` is good where it learns, busy where it will by itself, bad otherwise. A state that this page does not know is
// shown by its name.

import { duration, percent } from "./format.js";

const SAYS = {
  starting: "starting", recovering: "recovering", running: "learning",
  standby: "standing by", following: "following the learner that leads",
  waiting: "waiting for the log", paused: "paused", stalled: "stalled", stopped: "stopped", failed: "failed",
};
const ENDED = new Set(["paused", "stalled", "stopped", "failed"]);
const AT_WORK = new Set(["starting", "recovering", "running", "standby", "following", "waiting"]); // it says so every few seconds
const WELL = new Set(["running", "following"]);

export function describe(learner) {
  if (!learner) return { text: "no learner has run yet", mood: "bad" };
  const { state, alive } = learner;
  const detail = learner.detail || progress(learner.start);
  let text = Object.hasOwn(SAYS, state) ? SAYS[state] : state.replaceAll(/[-_]/g, " ");
  let mood = alive && WELL.has(state) ? "good" : ENDED.has(state) ? "bad" : "busy";
  if (!alive && AT_WORK.has(state)) {
    mood = "bad";
    const lost = `the learner is ${learner.word === "silent" ? "silent" : "gone"}`;
    text = WELL.has(state) ? lost : `${lost} (it was ${text})`;
  } else if (!alive && !ENDED.has(state)) {
    const [value, unit] = duration(learner.status_age_seconds);
    text += `, said ${value} ${unit} ago`;
  }
  return { text: detail ? `${text}: ${detail}` : text, mood };
}

/** What a start is at, and how much of that is done. */
function progress(start) {
  if (!start) return "";
  return typeof start.share === "number" ? `${start.doing}, ${percent(start.share)}` : start.doing;
}

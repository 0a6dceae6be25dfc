// What is the learner doing, in words?
//
// `mood` is good where it learns, busy where it will by itself, bad otherwise. A state that this page does not know is
// shown by its name.

import { duration } from "./format.js";

const SAYS = {
  compiling: "compiling", starting: "starting", recovering: "recovering", running: "learning",
  waiting: "waiting for the log", paused: "paused", stalled: "stalled", stopped: "stopped", failed: "failed",
};
const ENDED = new Set(["paused", "stalled", "stopped", "failed"]);
const AT_WORK = new Set(["recovering", "running", "waiting"]); // it says so at least every few seconds

export function describe(learner) {
  if (!learner) return { text: "no learner has run yet", mood: "bad" };
  const { state, alive, detail } = learner;
  let text = Object.hasOwn(SAYS, state) ? SAYS[state] : state.replaceAll(/[-_]/g, " ");
  let mood = alive && state === "running" ? "good" : ENDED.has(state) ? "bad" : "busy";
  if (!alive && AT_WORK.has(state)) {
    mood = "bad";
    text = state === "running" ? "the learner is gone" : `the learner is gone (it was ${text})`;
  } else if (!alive && !ENDED.has(state)) {
    const [value, unit] = duration(learner.status_age_seconds);
    text += `, said ${value} ${unit} ago`;
  }
  return { text: detail ? `${text}: ${detail}` : text, mood };
}

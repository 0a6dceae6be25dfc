// How does a label get to the API, also while that is away?
//
// One after another, in the order in which they were given. While nobody answers they are kept, over a reload too, and
// sent again; the same id counts once, so a label that came through without an answer is not learned twice.

import { post } from "../base/api.js";
import { changed, trail } from "./trail.js";

const FIRST_WAIT_S = 1;
const MAX_WAIT_S = 15;
let running = false;
let wake = null; // ends a wait
let onSent = () => {};
let onRefused = () => {};

/** Say what is done with each label that was taken, or was refused, and send what is left of the time before. */
export function start(sent, refused) {
  [onSent, onRefused] = [sent, refused];
  run();
}

export function send(feedback) {
  trail.unsent.push({ feedback, tries: 0 });
  changed();
  run();
}

/** Drop a label that was not sent yet; return whether it can have been: then it has to be taken back there. */
export function drop(id) {
  const at = trail.unsent.findIndex(({ feedback }) => feedback.id === id);
  if (at < 0) return true;
  const [{ tries }] = trail.unsent.splice(at, 1);
  changed();
  return tries > 0;
}

/** Try again now: the API answers again. */
export const kick = () => wake?.();

export const isUnsent = (id) => trail.unsent.some(({ feedback }) => feedback.id === id);

/** How many wait because the API does not answer. */
export const nWaiting = () => (trail.unsent[0]?.tries > 0 && wake ? trail.unsent.length : 0);

async function run() {
  if (running) return;
  running = true;
  for (let item; (item = trail.unsent[0]); ) {
    item.tries += 1;
    try {
      const answer = await post("feedback", item.feedback);
      remove(item);
      onSent(item.feedback, answer);
    } catch (error) {
      if (error.isAway) await wait(item.tries);
      else if (remove(item)) onRefused(item.feedback, error);
    }
  }
  running = false;
}

/** Take what is answered off the list; return whether it was still there: somebody may have dropped it meanwhile. */
function remove(item) {
  const at = trail.unsent.indexOf(item);
  if (at >= 0) trail.unsent.splice(at, 1);
  changed();
  return at >= 0;
}

function wait(tries) {
  const seconds = Math.min(FIRST_WAIT_S * 2 ** (tries - 1), MAX_WAIT_S);
  return new Promise((resolve) => {
    const timer = setTimeout(() => wake?.(), 1000 * seconds);
    wake = () => {
      clearTimeout(timer);
      wake = null;
      resolve();
    };
    changed();
  });
}

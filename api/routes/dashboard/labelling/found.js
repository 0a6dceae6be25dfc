// Which messages are there, and what is known of one? From the API's index of messages, which follows the log while
// somebody asks: each answer says how far it is.

import { get } from "../base/api.js";
import { count, many } from "../base/format.js";

export const PAGE = 50;
const PARAMS = ["query", "label", "predicted", "source", "since", "until", "state", "order", "n", "after"];
const FAR = 1000; // records not read yet: fewer are there in a moment

/** Return a page of what is found: {messages, next, count, count_is_exact, index}. */
export function found(asked) {
  const given = PARAMS.filter((name) => asked[name] !== undefined && asked[name] !== null && asked[name] !== "");
  return get(`messages?${new URLSearchParams(given.map((name) => [name, asked[name]]))}`);
}

/** Return all that is known of a message. */
export const whole = (id) => get(`messages/${encodeURIComponent(id)}`);

/** Whether there is no such message, or not yet. */
export const isUnknown = ({ code }) => code === "no-message";

/** Whether a page is asked for that goes on from one of an index that was made anew meanwhile. */
export const isOfBefore = ({ status }, { after }) => status === 422 && Boolean(after);

/** Say how many were found: beyond a bound the API does not count on. */
export const countOf = (n, isExact) => (isExact ? count(n) : `more than ${count(n)}`);

/** Say how far the index is, where it is not as far as the log; "": it is. */
export function lateness(index) {
  if (!index) return "";
  const { ready, indexed, behind, problem } = index;
  const stands = problem ? ` It gets no further: ${problem}` : "";
  if (!ready) return `${many(indexed, "message")} of the log ${indexed === 1 ? "is" : "are"} read so far${behind ? `; ${many(behind, "record")} (messages, labels, predictions) ${behind === 1 ? "is" : "are"} to come` : ""}.${stands}`;
  if (behind > FAR) return `The newest may not be found yet: ${count(behind)} records are to be read.${stands}`;
  return stands.trim();
}

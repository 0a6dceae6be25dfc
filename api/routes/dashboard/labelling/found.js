// Which messages are there, and what is known of one? From the API's index of messages where there is one.
//
// An API without an index has only the last hundred messages (GET /recent). Those are searched here then, so that the
// rooms work, and say that this is all they know.

import { get } from "../base/api.js";

export const PAGE = 50;
const PARAMS = ["query", "label", "predicted", "source", "since", "until", "state", "order", "n", "after"];
let there = true; // whether the API has an index

/** Whether what is found is of the last messages only. */
export const isOfLate = () => !there;

/** Return a page of what is found: {messages, next, count, count_is_exact, index}. */
export async function found(asked) {
  if (there) {
    const params = new URLSearchParams(PARAMS.flatMap((name) => (asked[name] === undefined || asked[name] === "" || asked[name] === null ? [] : [[name, asked[name]]])));
    try {
      return await get(`messages?${params}`);
    } catch (error) {
      if (!isMissing(error)) throw error;
      there = false;
    }
  }
  return searched(await get("recent"), asked);
}

const isMissing = ({ status, code }) => status === 405 || (status === 404 && code !== "unknown-message");

/** Return all that is known of a message; null where the API has no such thing. */
export async function whole(id) {
  if (!there) return null;
  try {
    return await get(`messages/${encodeURIComponent(id)}`);
  } catch (error) {
    if (!isMissing(error)) throw error;
    if (error.status === 405) there = false;
    return null;
  }
}

function searched({ messages, labelled }, asked) {
  const byId = new Map([...labelled, ...messages].map((each) => [each.id, each]));
  const words = (asked.query ?? "").toLowerCase().match(/"[^"]+"|\S+/g) ?? [];
  const state = {
    all: () => true, unlabelled: ({ label, retracted }) => label === null || retracted, labelled: ({ label }) => label !== null,
    mistakes: ({ label, predicted, retracted }) => label !== null && predicted !== null && label !== predicted && !retracted,
  }[asked.state ?? "all"];
  const fits = (each) => state(each) && (!asked.label || each.label === asked.label) && (!asked.predicted || each.predicted === asked.predicted) &&
    (!asked.since || each.timestamp_ms >= 1000 * asked.since) && (!asked.until || each.timestamp_ms <= 1000 * asked.until) &&
    words.every((word) => each.text.toLowerCase().includes(word.replaceAll('"', "").replace(/\*$/, "")));
  const order = { new: (a, b) => b.timestamp_ms - a.timestamp_ms, old: (a, b) => a.timestamp_ms - b.timestamp_ms, doubt: (a, b) => (a.score ?? 0) - (b.score ?? 0) };
  const all = [...byId.values()].filter(fits).sort(order[asked.order ?? "new"]);
  const at = Number(asked.after ?? 0);
  const n = Number(asked.n ?? PAGE);
  return { messages: all.slice(at, at + n), next: at + n < all.length ? String(at + n) : null, count: all.length, count_is_exact: true, index: null };
}

// What does a message say in full, and which of its words spoke? Fetched before it is needed; nothing waits for it.

import { post, withFields } from "../base/api.js";
import { isUnknown, whole } from "./found.js";

const KEPT = 12; // messages
const EXPLAINED = 10_000; // characters, as many as the API explains
const FEATURES = 200;
const REST_MS = 10_000; // after a refusal
const texts = new Map(); // id: {text, fields}, null while it is asked for, undefined where no more is known
const reasons = new Map(); // id: {label, scores, features, length}, likewise
let busy = false; // one explanation at a time
let notBefore = 0;

/** Return the whole text of a message as far as it is known: {text, fields, isWhole}. */
export function textOf({ id, text, fields, truncated }) {
  const known = texts.get(id);
  return known ? { ...known, isWhole: true } : { text, fields, isWhole: !truncated };
}

export const reasonOf = ({ id }) => reasons.get(id) ?? null;

/** Fetch what is missing of messages, the first of which is seen; `tell` is called when something came. */
export async function prepare(requests, isExplainable, tell) {
  for (const { id, truncated } of requests) {
    if (!truncated || texts.has(id)) continue;
    put(texts, id, null);
    whole(id).then((known) => {
      put(texts, id, { text: known.text, fields: known.fields });
      tell();
    }, (error) => (isUnknown(error) ? put(texts, id, undefined) : texts.delete(id)));
  }
  const next = requests.slice(0, 2).find(({ id }) => !reasons.has(id));
  if (!next || busy || !isExplainable || Date.now() < notBefore) return;
  if (next.truncated && texts.get(next.id) === null) return; // its text is on its way
  busy = true;
  const { text, fields } = textOf(next);
  const part = text.slice(0, EXPLAINED).toWellFormed();
  try {
    const { label, scores, features } = await post("explain", { text: part, ...withFields(fields), features: FEATURES });
    put(reasons, next.id, { label, scores, features, length: part.length });
    tell();
  } catch {
    notBefore = Date.now() + REST_MS;
  } finally {
    busy = false;
  }
}

export function forgetReadings() {
  texts.clear();
  reasons.clear();
}

function put(map, key, value) {
  map.delete(key);
  map.set(key, value);
  if (map.size > KEPT) map.delete(map.keys().next().value);
}

// How is the API asked? Beside this page, wherever that is; with the tab's key where there is one. Every error has the
// API's one shape.

const KEY = "driftline-key";
const BASE = new URL("../..", import.meta.url); // a proxy may have put the API behind a prefix
const AGAIN = new Set([408, 429]); // it answers, and may not refuse the next time
let onRefused = () => {};
let keyName; // by which the API knows this tab's key; null: it asks for none; undefined: it has not said yet

export class ApiError extends Error {
  constructor(status, { code = "unreachable", error = "the API does not answer", action = "" } = {}) {
    super(error);
    Object.assign(this, { status, code, action });
  }

  /** Whether nobody answered: what was sent may be sent again, and may have come through. */
  get isAway() {
    return this.code === "unreachable" || AGAIN.has(this.status);
  }
}

/** Return where a path of the API is. */
export const urlOf = (path) => new URL(path, BASE);

export function whenKeyIsRefused(callback) {
  onRefused = callback;
}

export const key = {
  get: () => sessionStorage.getItem(KEY) ?? "",
  set: (value) => (value ? sessionStorage.setItem(KEY, value) : sessionStorage.removeItem(KEY)),
};

async function ask(method, path, body, more) {
  const used = key.get();
  const headers = used ? { Authorization: `Bearer ${used}` } : {};
  let response;
  let content = null;
  try {
    response = await fetch(urlOf(path), { method, headers, body: body && JSON.stringify(body), credentials: "omit", cache: "no-store", ...more });
    const text = await response.text();
    content = text ? JSON.parse(text) : null;
  } catch (error) {
    throw new ApiError(response?.status ?? 0);
  }
  if (response.ok) return content;
  const error = new ApiError(response.status, content ?? undefined);
  if (response.status === 401 && used === key.get()) onRefused(error); // else another key was given meanwhile
  throw error;
}

export const get = (path) => ask("GET", path);
export const post = (path, body) => ask("POST", path, body);
/** Send something that is to arrive although the page goes. */
export const postLast = (path, body) => ask("POST", path, body, { keepalive: true });
export const remove = (path) => ask("DELETE", path);

/** An id that nobody else makes; crypto.randomUUID is there only in secure contexts. */
export function newId() {
  return Array.from(crypto.getRandomValues(new Uint8Array(12)), (byte) => byte.toString(16).padStart(2, "0")).join("");
}

/** Note by which name the API knows the tab's key. */
export function setKeyName(name) {
  keyName = name;
}

/** Return a label as it is sent. With a key the API itself says whose it is. */
export function signed(feedback) {
  const anonymous = keyName === null || (keyName === undefined && !key.get());
  return { id: newId(), ...(anonymous ? { source: "page" } : {}), ...feedback };
}

/** Return fields as a part of a request: nothing where there are none. */
export const withFields = (fields) => (Object.keys(fields ?? {}).length ? { fields } : {});

/** Return what the model says now that it has learned a label that was sent, or the error where it does not in time. */
export async function learned({ partition, offset }, { text, fields }) {
  try {
    return { now: (await post("predict", { text, ...withFields(fields), min_feedback_offset: { partition, offset } })).predictions[0] };
  } catch (error) {
    return { error };
  }
}

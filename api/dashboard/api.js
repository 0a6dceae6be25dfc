// How is the API asked? With the tab's key where there is one; every error has the API's one shape.

const KEY = "driftline-key";
let onRefused = () => {};

export class ApiError extends Error {
  constructor(status, { code = "unreachable", error = "the API does not answer", action = "" } = {}) {
    super(error);
    Object.assign(this, { status, code, action });
  }
}

export function whenKeyIsRefused(callback) {
  onRefused = callback;
}

export const key = {
  get: () => sessionStorage.getItem(KEY) ?? "",
  set: (value) => (value ? sessionStorage.setItem(KEY, value) : sessionStorage.removeItem(KEY)),
};

async function ask(method, path, body) {
  const used = key.get();
  const headers = used ? { Authorization: `Bearer ${used}` } : {};
  let response;
  let content = null;
  try {
    response = await fetch(path, { method, headers, body: body && JSON.stringify(body), credentials: "omit", cache: "no-store" });
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
export const remove = (path) => ask("DELETE", path);

/** An id that nobody else makes; crypto.randomUUID is there only in secure contexts. */
export function newId() {
  return Array.from(crypto.getRandomValues(new Uint8Array(12)), (byte) => byte.toString(16).padStart(2, "0")).join("");
}

/** Send a label, and return once the served model has learned it, with what it now says of the text. */
export async function teach(feedback, text) {
  const sent = await post("/feedback", { id: newId(), source: "page", ...feedback });
  return { sent, learned: learned(sent, text) };
}

/** Return what the model says now that it has learned a label, or the error where it does not in time. */
async function learned({ partition, offset }, text) {
  try {
    return { now: (await post("/predict", { text, min_feedback_offset: { partition, offset } })).predictions[0] };
  } catch (error) {
    return { error };
  }
}

// What does this browser keep of how somebody likes the page? The colours, and whether single keys label. No key, no text.

const KEY = "driftline-page";
const BLANK = { theme: "system", keys: "on" };
const listeners = [];
const kept = load();

function load() {
  try {
    const found = JSON.parse(localStorage.getItem(KEY) ?? "{}");
    return { theme: ["light", "dark"].includes(found.theme) ? found.theme : BLANK.theme, keys: found.keys === "off" ? "off" : BLANK.keys };
  } catch {
    return { ...BLANK };
  }
}

export const setting = (name) => kept[name];

export function set(name, value) {
  kept[name] = value;
  try {
    localStorage.setItem(KEY, JSON.stringify(kept));
  } catch {
    // None allowed: then it holds until the page is left.
  }
  paint();
  for (const tell of listeners) tell();
}

/** Call a function after each change. */
export const whenSet = (tell) => listeners.push(tell);

/** Have the page in the colours that were chosen. */
export function paint() {
  if (kept.theme === "system") delete document.documentElement.dataset.theme;
  else document.documentElement.dataset.theme = kept.theme;
}

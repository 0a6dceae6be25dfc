// Which room of the page is seen, and with what in it? That stands in the address behind `#`, so that it can be kept,
// sent to somebody, and gone back from: `#messages?label=spam&predicted=ham`.

const OLD = { queue: "label", quality: "now", flow: "now", recent: "messages", snapshots: "models" }; // the page was one sheet once
const MAX = 2000; // characters of a value: what is longer was made by nobody

/** Return an address: the room's name, and what is to be seen in it. What is empty is left out. */
export function address(room, params = {}) {
  const known = Object.entries(params).filter(([, value]) => value !== "" && value !== null && value !== undefined);
  const query = new URLSearchParams(known.map(([name, value]) => [name, String(value)])).toString();
  return `#${room}${query ? `?${query}` : ""}`;
}

/** Read an address: {room, params}. */
export function read(hash) {
  const [name, query = ""] = hash.replace(/^#/, "").split(/\?(.*)/s);
  const params = Object.fromEntries([...new URLSearchParams(query)].map(([key, value]) => [key, value.slice(0, MAX)]));
  return { room: Object.hasOwn(OLD, name) ? OLD[name] : name, params };
}

/** Go somewhere; the back button leads here again, unless it is only a `correction` of where one is. */
export function go(room, params = {}, { correction = false } = {}) {
  const to = address(room, params);
  if (to === location.hash) return;
  if (!correction) {
    location.hash = to;
    return;
  }
  history.replaceState(null, "", to);
  dispatchEvent(new HashChangeEvent("hashchange"));
}

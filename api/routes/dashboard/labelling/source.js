// Where do the messages come from that somebody labels here: are they asked about, or found?
//
// Found messages come a page at a time, on from where the last one ended; what was labelled or skipped here is left out.
// The page is fetched anew every few seconds: what others have labelled meanwhile is gone from it.

import { PAGE, found, isOfBefore } from "./found.js";

const LEAST = 10; // with fewer than that before one, more are fetched
const STALE_MS = 4000;
const FILTERS = ["query", "label", "predicted", "source", "since", "until"];
const ORDERS = ["new", "old", "doubt"];

export class Source {
  params = { from: "asked" };
  count = null; // how many are found, and whether that is exact
  isExact = true;
  index = null; // how far the API's index is
  rest = null; // how many have no label, where nothing is asked about; null: the index does not know yet
  #left = []; // of pages before
  #items = []; // of the page that was fetched last
  #start; // where that begins; undefined: it is the first one
  #next; // where the next page begins; null: there is none; undefined: none was fetched
  #at = 0; // when it was fetched
  #asked = 0;

  /** Whether they are those that the learner asks about. */
  get isAsked() {
    return this.params.from === "asked";
  }

  get isSearch() {
    return this.params.from === "search";
  }

  /** Take what an address says; return whether that is something else than before. */
  set(given) {
    const filters = Object.fromEntries(FILTERS.filter((name) => given[name]).map((name) => [name, given[name]]));
    const isSearch = Object.keys(filters).length > 0 || ["labelled", "mistakes", "all"].includes(given.state);
    const from = isSearch ? "search" : ORDERS.includes(given.from) ? given.from : "asked";
    const state = isSearch ? given.state ?? "unlabelled" : "unlabelled";
    const order = isSearch ? (ORDERS.includes(given.order) ? given.order : "new") : from;
    const params = from === "asked" ? { from } : { from, state, order, ...filters };
    if (JSON.stringify(params) === JSON.stringify(this.params)) return false;
    this.params = params;
    this.forget();
    return true;
  }

  forget() {
    this.#asked += 1;
    [this.#left, this.#items, this.#start, this.#next, this.count, this.index, this.rest] = [[], [], undefined, undefined, null, null, null];
  }

  /** Return what is found and not `isGone`, as the learner asks about messages; null: it is out of date. */
  async fetch(isGone) {
    const here = () => [...this.#left, ...this.#items].filter(({ id }) => !isGone(id));
    const n = here().length;
    const goesOn = n < LEAST && Boolean(this.#next);
    if (this.#next !== undefined && !goesOn && n > 0 && Date.now() - this.#at < STALE_MS) return here();
    const asked = this.#asked;
    const { from: _, ...filters } = this.params;
    const start = goesOn ? this.#next : n > 0 ? this.#start : undefined;
    const wanted = { ...filters, n: PAGE, after: start };
    let answer;
    try {
      answer = await found(wanted);
    } catch (error) {
      if (asked !== this.#asked || !isOfBefore(error, wanted)) throw error;
      this.forget(); // from the first page on: what was done here is left out anyway
      return this.fetch(isGone);
    }
    if (asked !== this.#asked) return null;
    if (goesOn) this.#left = here();
    const known = new Set(this.#left.map(({ id }) => id));
    this.#items = answer.messages.filter(({ id }) => !known.has(id)).map(asRequest);
    [this.#start, this.#next, this.#at] = [start, answer.next, Date.now()];
    [this.count, this.isExact, this.index] = [answer.count, answer.count_is_exact, answer.index];
    return here();
  }

  /** Look how many have no label at all: so that nobody is told that all is done while they wait. */
  async countRest() {
    const { count, index } = await found({ state: "unlabelled", n: 1 });
    this.rest = index.ready ? count : null;
  }
}

function asRequest({ id, text, truncated, timestamp_ms, fields, predicted, score, label: known }) {
  return { id, text, truncated, timestamp_ms, fields, label: predicted, score: score ?? 0, scores: predicted === null ? {} : { [predicted]: score ?? 0 }, chance: null, known };
}

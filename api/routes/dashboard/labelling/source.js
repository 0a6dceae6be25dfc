// Where do the messages come from that somebody labels here: are they asked about, or found?
//
// Found messages come a page at a time, on from where the last one ended; what was labelled or skipped here is left out.

import { PAGE, found, isOfLate } from "./found.js";

const LEAST = 10; // with fewer than that before one, more are fetched
const MAX = 200; // that are kept
const FILTERS = ["query", "label", "predicted", "source", "since", "until"];
const ORDERS = ["new", "old", "doubt"];

export class Source {
  params = { from: "asked" };
  count = null; // how many are found, and whether that is exact
  isExact = true;
  index = null; // how far the API's index is
  rest = null; // how many have no label, where nothing is asked about
  #items = [];
  #next; // where the next page begins; null: there is none; undefined: none was fetched
  #asked = 0;

  /** Whether they are those that the learner asks about. */
  get isAsked() {
    return this.params.from === "asked";
  }

  get isSearch() {
    return this.params.from === "search";
  }

  /** Whether only the last messages are known. */
  get isOfLate() {
    return isOfLate();
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
    [this.#items, this.#next, this.count, this.index, this.rest] = [[], undefined, null, null, null];
  }

  /** Return what is found and not `isGone`, as the learner asks about messages; null: it is out of date. */
  async fetch(isGone) {
    this.#items = this.#items.filter(({ id }) => !isGone(id)).slice(-MAX);
    const isOver = this.#next === null && this.#items.length === 0;
    if (this.#next === undefined || isOver || (this.#items.length < LEAST && this.#next !== null)) {
      const asked = this.#asked;
      const { from: _, ...filters } = this.params;
      const answer = await found({ ...filters, n: PAGE, after: isOver ? undefined : this.#next });
      if (asked !== this.#asked) return null;
      const known = new Set(this.#items.map(({ id }) => id));
      this.#items.push(...answer.messages.filter(({ id }) => !known.has(id) && !isGone(id)).map(asRequest));
      [this.#next, this.count, this.isExact, this.index] = [answer.next, answer.count, answer.count_is_exact, answer.index];
    }
    return [...this.#items];
  }

  /** Look how many have no label at all: so that nobody is told that all is done while they wait. */
  async countRest() {
    const { count } = await found({ state: "unlabelled", n: 1 });
    this.rest = count;
  }
}

function asRequest({ id, text, truncated, timestamp_ms, fields, predicted, score, label, retracted }) {
  const known = label !== null && !retracted ? label : null;
  return { id, text, truncated, timestamp_ms, fields, label: predicted, score: score ?? 0, scores: predicted === null ? {} : { [predicted]: score ?? 0 }, chance: null, known };
}

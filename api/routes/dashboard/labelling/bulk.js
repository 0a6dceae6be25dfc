// How are all messages that a search finds labelled at once? Counted, looked at a second time, sent in parts, undone.
//
// The messages are gathered first: what is confirmed is what is labelled, whatever comes in meanwhile.

import { newId, post, signed } from "../base/api.js";
import { announce, el, fill } from "../base/dom.js";
import { count, cut, many } from "../base/format.js";
import { countOf, found, lateness } from "./found.js";
import { countToday, remember, undo, whenUndone } from "./trail.js";
import { TypeAhead } from "./typeahead.js";

const MOST = 2000; // at once: an undo has to remember them all
const PART = 100; // labels a request
const SHORT = 60;

export class Bulk {
  isBusy = false;
  #about = null; // what was found: {params, count, isExact}
  #parts;
  #finder;

  constructor(root, labels) {
    this.#parts = { start: el("div", { class: "row" }), find: el("div", { class: "find", hidden: true }), sure: el("div", { class: "sure", hidden: true }) };
    root.replaceChildren(this.#parts.start, this.#parts.find, this.#parts.sure);
    this.#finder = new TypeAhead(this.#parts.find, "Label of all messages found", labels, (name) => this.#gather(name));
    whenUndone("bulk", (step) => this.#takeBack(step));
  }

  /** Say what is found now; null: nothing. */
  set(about) {
    const isOther = JSON.stringify(about?.params) !== JSON.stringify(this.#about?.params);
    this.#about = about;
    if (isOther && !this.isBusy) this.#finder.close();
    if (isOther && !this.isBusy) this.#parts.sure.hidden = true;
    fill(this.#parts.start, about ? el("button", { type: "button", onclick: () => this.#finder.open() }, `Label all ${countOf(about.count, about.isExact)} found as …`) : "");
  }

  #say(...content) {
    this.#parts.sure.hidden = false;
    this.#parts.sure.replaceChildren(...content); // anew each time: a button is of these messages, not of others
  }

  async #gather(label) {
    this.isBusy = true;
    const items = [];
    let isAll = true;
    let late = "";
    try {
      let after;
      do {
        const page = await found({ ...this.#about.params, n: PART, after });
        for (const each of page.messages) if (each.label !== label) items.push([each.id, each.label]);
        after = page.next;
        late = lateness(page.index);
        if (items.length >= MOST) isAll = after === null && items.length === MOST;
        this.#say(el("p", {}, `Counting: ${count(items.length)} …`));
      } while (after !== null && items.length < MOST);
    } catch (error) {
      this.isBusy = false;
      this.#say(el("p", { class: "worse" }, `${error.message}. ${error.action ?? ""}`));
      return;
    }
    this.#confirm(label, items.slice(0, MOST), isAll, late);
  }

  #confirm(label, items, isAll, late) {
    const other = items.filter(([, before]) => before !== null).length;
    const close = () => {
      this.isBusy = false;
      this.#parts.sure.hidden = true;
    };
    if (!items.length) {
      this.isBusy = false;
      this.#say(el("p", {}, `All that was found is ${label} already.`));
      return;
    }
    const yes = el("button", { type: "button", class: "strong", onclick: () => this.#send(label, items) }, `Label ${count(items.length)} as ${cut(label, SHORT)}`);
    this.#say(el("p", {}, `Label ${many(items.length, "message")} as `, el("b", { dir: "auto" }, label), "?",
      isAll ? "" : ` These are the first ${count(items.length)}: as many as are labelled at once.`,
      other ? ` ${count(other)} of them ${other === 1 ? "has" : "have"} another label, which is corrected.` : "", late ? ` ${late}` : ""),
    el("div", { class: "row" }, yes, el("button", { type: "button", onclick: close }, "Do not")));
    announce(`Label ${many(items.length, "message")} as ${label}? Press the button to do it.`);
  }

  async #send(label, items) {
    const sent = [];
    try {
      for (let at = 0; at < items.length; at += PART) {
        const part = items.slice(at, at + PART);
        await post("feedback", part.map(([id]) => signed({ id: newId(), message_id: id, label })));
        sent.push(...part);
        this.#say(el("p", {}, `Sent ${count(sent.length)} of ${count(items.length)} …`));
      }
      this.#say(el("p", { class: "better" }, `Labelled ${many(sent.length, "message")} as ${label}. `), el("button", { type: "button", onclick: undo }, "Undo"));
    } catch (error) {
      this.#say(el("p", { class: "worse" }, `${count(sent.length)} of ${count(items.length)} were taken, the others not: ${error.message}. ${error.action}`),
        sent.length ? el("button", { type: "button", onclick: undo }, "Undo") : "");
    }
    this.isBusy = false;
    if (!sent.length) return;
    countToday(sent.length);
    remember({ kind: "bulk", label, items: sent });
    announce(`Labelled ${many(sent.length, "message")} as ${label}.`);
  }

  async #takeBack({ label, items }) {
    let n = 0;
    try {
      for (let at = 0; at < items.length; at += PART) {
        const part = items.slice(at, at + PART);
        await post("feedback", part.map(([id, before]) => signed({ message_id: id, ...(before === null ? { label, op: "retract" } : { label: before }) })));
        n += part.length;
      }
      this.#say(el("p", {}, `Taken back: ${label}, ${many(n, "message")}. The model keeps what it learned of them until they are labelled again, or until driftline rebuild.`));
    } catch (error) {
      remember({ kind: "bulk", label, items: items.slice(n) });
      this.#say(el("p", { class: "worse" }, `${count(n)} of ${count(items.length)} were taken back: ${error.message}. ${error.action}`));
    }
    countToday(-n);
  }
}

// Which of all labels is it? Some letters of its name find it; one that there is not yet is made in a step of its own.
//
// What is written is looked for in all names. Enter takes the one that is marked. Where no name has it, the likest ones
// stand there, none of them marked: Enter alone makes nothing and takes nothing. A new label is made by its own line.

import { announce, el, fill } from "../base/dom.js";
import { many } from "../base/format.js";
import { matching, nearest } from "./names.js";

const NEAREST = 5;
let made = 0;

export class TypeAhead {
  #options = []; // {name, isNew}
  #at = -1; // the one that is marked
  #asksNew = false; // Enter was pressed where no name has what was written
  #take;
  #names;
  #onClose;

  /**
   * @param root   where it is put
   * @param names  a function: all labels
   * @param take   is given the label that was chosen
   * @param onClose  is called where nothing was
   */
  constructor(root, label, names, take, onClose = () => {}) {
    [this.#names, this.#take, this.#onClose] = [names, take, onClose];
    this.id = `find-${++made}`;
    this.root = root;
    this.input = el("input", {
      id: this.id, role: "combobox", "aria-label": label, "aria-expanded": "false", "aria-controls": `${this.id}-list`, "aria-autocomplete": "list",
      "aria-describedby": `${this.id}-note`, maxlength: 256, autocomplete: "off", spellcheck: "false", placeholder: "a part of its name",
    });
    this.list = el("ul", { id: `${this.id}-list`, role: "listbox", class: "options", "aria-label": "Labels" });
    this.note = el("p", { id: `${this.id}-note`, class: "note" });
    root.replaceChildren(this.input, this.note, this.list);
    this.input.addEventListener("input", () => {
      this.#asksNew = false;
      this.#look();
    });
    this.input.addEventListener("keydown", (event) => this.#onKey(event));
  }

  get isOpen() {
    return !this.root.hidden;
  }

  open() {
    this.root.hidden = false;
    this.input.setAttribute("aria-expanded", "true");
    this.input.value = "";
    this.#asksNew = false;
    this.#look();
    this.input.focus();
  }

  close() {
    this.root.hidden = true;
    this.input.setAttribute("aria-expanded", "false");
  }

  #look() {
    const written = this.input.value.trim();
    const names = this.#names();
    const found = matching(names, written);
    const isThere = names.includes(written);
    if (this.#asksNew) this.#options = [...nearest(names, written, NEAREST).map((name) => ({ name })), { name: written, isNew: true }];
    else this.#options = [...found.map((name) => ({ name })), ...(written && !isThere ? [{ name: written, asks: true }] : [])];
    this.#at = !this.#asksNew && found.length && written ? 0 : -1;
    this.#say(written, found.length, names.length);
    this.#show();
  }

  #say(written, n, all) {
    let text = written ? `${many(n, "label")} of ${all}: Enter takes the first, arrows go on.` : `${many(all, "label")}. Write a part of the name.`;
    if (this.#asksNew) text = all ? "No such label yet. Is it one of these? Arrows choose, Enter takes." : "No such label yet.";
    else if (written && !n) text = "No label has that. Enter shows the nearest names.";
    fill(this.note, text);
    announce(text);
  }

  #show() {
    fill(this.list, ...this.#options.map((option, i) => el("li", {
      id: `${this.id}-${i}`, role: "option", "aria-selected": String(i === this.#at), class: option.isNew || option.asks ? "new" : null, dir: "auto",
    }, textOf(option))));
    [...this.list.children].forEach((line, i) => {
      line.onmousedown = (event) => event.preventDefault(); // the focus stays
      line.onclick = () => this.#choose(i);
    });
    this.#mark();
  }

  #mark() {
    [...this.list.children].forEach((line, i) => line.setAttribute("aria-selected", String(i === this.#at)));
    const line = this.list.children[this.#at];
    if (line) {
      this.input.setAttribute("aria-activedescendant", line.id);
      line.scrollIntoView({ block: "nearest" });
    } else this.input.removeAttribute("aria-activedescendant");
  }

  #choose(i) {
    const option = this.#options[i];
    if (!option) return;
    if (option.asks) this.#askNew();
    else {
      this.close();
      this.#take(option.name);
    }
  }

  #askNew() {
    this.#asksNew = true;
    this.#look();
  }

  #onKey(event) {
    if (event.isComposing) return;
    const step = { ArrowDown: 1, ArrowUp: -1 }[event.key];
    if (step && this.#options.length) {
      const n = this.#options.length;
      this.#at = this.#at < 0 ? (step > 0 ? 0 : n - 1) : (this.#at + step + n) % n;
      this.#mark();
    } else if (event.key === "Enter") {
      if (this.#at >= 0) this.#choose(this.#at);
      else if (this.input.value.trim() && !this.#asksNew) this.#askNew();
    } else if (event.key === "Escape") {
      this.close();
      this.#onClose();
    } else return;
    event.preventDefault();
    event.stopPropagation();
  }
}

function textOf({ name, isNew, asks }) {
  if (isNew) return `Make new label “${name}”`;
  return asks ? `New label “${name}” …` : name;
}

// What is known of a message beside its text? Each field has a name and a value.

import { el } from "./dom.js";

const NUMBER = /^-?(0|[1-9]\d{0,17})(\.\d+)?(e[+-]?\d{1,2})?$/i; // as in a table: what begins with a 0, as post codes do, is none

/** Make a list of fields, or nothing where there are none. */
export function fieldList(fields) {
  const all = Object.entries(fields ?? {});
  return all.length ? el("ul", { class: "fields", "aria-label": "Fields" }, ...all.map(([name, value]) =>
    el("li", { dir: "auto" }, el("b", {}, name), `: ${Array.isArray(value) ? value.join(", ") : value}`))) : null;
}

/** Read `sender=a@b.example; amount=5`. Returns the fields, or null where something is not NAME=VALUE. */
export function readFields(text) {
  const fields = {};
  for (const part of text.split(";").map((each) => each.trim()).filter(Boolean)) {
    const at = part.indexOf("=");
    const [name, value] = [part.slice(0, at).trim(), part.slice(at + 1).trim()];
    if (at < 0 || !name) return null;
    fields[name] = NUMBER.test(value) ? Number(value) : value;
  }
  return fields;
}

// With which key is the API asked? The field shows once the API refuses, or when somebody opens it.

import { key, whenKeyIsRefused } from "./api.js";
import { $, announce, setText } from "./dom.js";

const SENDABLE = /^[\x21-\x7e]*$/; // in a header

/** Say what is done once another key is used, and before the page is loaded anew without one. */
export function start(onChange, forget) {
  const show = (shown) => {
    $("key").hidden = !shown;
    $("key-open").setAttribute("aria-expanded", String(shown));
  };
  const use = (value) => {
    const isOther = value !== key.get();
    key.set(value);
    $("key-value").value = "";
    show(false);
    setText($("key-note"), "Kept in this tab only.");
    $("key-open").focus();
    onChange(isOther);
  };
  $("key-open").addEventListener("click", () => {
    show($("key").hidden);
    if (!$("key").hidden) $("key-value").focus();
  });
  $("key").addEventListener("submit", (event) => {
    event.preventDefault();
    const value = $("key-value").value.trim();
    if (SENDABLE.test(value)) use(value);
    else setText($("key-note"), "No key has such characters. Copy it anew.");
  });
  $("key-forget").addEventListener("click", () => {
    key.set("");
    forget();
    location.reload(); // nothing that it showed stays
  });
  $("key-value").addEventListener("keydown", (event) => {
    if (event.key === "Escape") show(false);
  });
  whenKeyIsRefused((error) => {
    setText($("key-note"), `${error.message}. ${error.action}`);
    if (!$("key").hidden) return;
    show(true);
    announce("An API key is needed.");
    if (document.activeElement === document.body) $("key-value").focus();
  });
}

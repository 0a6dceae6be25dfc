// With which key is the API asked? The field shows once the API refuses, or when somebody opens it.

import { key, whenKeyIsRefused } from "./api.js";
import { $, announce, setText } from "./dom.js";

export function start(onChange) {
  const show = (shown) => {
    $("key").hidden = !shown;
    $("key-open").setAttribute("aria-expanded", String(shown));
  };
  const use = (value) => {
    key.set(value.trim());
    $("key-value").value = "";
    show(false);
    setText($("key-note"), "Kept in this tab only.");
    $("key-open").focus();
    onChange();
  };
  $("key-open").addEventListener("click", () => {
    show($("key").hidden);
    if (!$("key").hidden) $("key-value").focus();
  });
  $("key").addEventListener("submit", (event) => {
    event.preventDefault();
    use($("key-value").value);
  });
  $("key-forget").addEventListener("click", () => use(""));
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

// How does somebody like the page, with which key does it ask, and which keys does it know?

import { key } from "../base/api.js";
import { $, choice, setText } from "../base/dom.js";
import { set, setting } from "../base/kept.js";
import { showKeys } from "../labelling/keys.js";

const THEMES = [["system", "as the machine"], ["light", "light"], ["dark", "dark"]];
const SINGLE = [["on", "on"], ["off", "off"]];

export const settings = {
  name: "settings",
  title: "Settings and keys",
  start() {
    choice($("theme"), THEMES, setting("theme"), (value) => set("theme", value));
    choice($("single"), SINGLE, setting("keys"), (value) => set("keys", value));
    showKeys($("settings-keys"));
    $("access-open").addEventListener("click", () => $("key").hidden && $("key-open").click());
    $("access-forget").addEventListener("click", () => $("key-forget").click());
  },
  show: showAccess,
  model: showAccess,
};

function showAccess() {
  const has = key.get() !== "";
  setText($("access-is"), has ? "This tab has a key. It is kept in this tab only, and gone when the tab is closed." : "This tab has no key. Where the API asks for one, whoever runs it makes one: driftline keys add NAME --role label.");
  $("access-forget").hidden = !has;
  setText($("access-open"), has ? "Give another key" : "Give a key");
}

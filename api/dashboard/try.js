// What does the model say of a text, and why? And: it is really this.

import { newId, post, teach } from "./api.js";
import { $, announce, el, fill, setText } from "./dom.js";
import { ranked, score, signed } from "./format.js";
import { runs, strongest } from "./marks.js";

const WAIT_MS = 250;
const FEATURES = 200;
const SHOWN = 5; // labels
const WORDS = 8;
let timer = null;
let asked = 0;
let label = null; // whose words are marked; null: the best

export function start() {
  $("try-text").addEventListener("input", () => {
    clearTimeout(timer);
    timer = setTimeout(() => { label = null; explain(); }, WAIT_MS);
  });
  $("teach").addEventListener("click", learn);
  $("teach-label").addEventListener("keydown", (event) => event.key === "Enter" && learn());
}

const text = () => $("try-text").value.toWellFormed();

async function explain() {
  const number = ++asked;
  if (!text().trim()) return fill($("try-result"));
  const body = { text: text(), features: FEATURES, ...(label === null ? {} : { labels: [label] }) };
  try {
    const answer = await post("/explain", body);
    if (number !== asked) return;
    show(body.text, answer);
    announce(`${answer.label}, ${score(answer.score)}`);
  } catch (error) {
    if (number === asked) fill($("try-result"), el("p", { class: "note" }, error.code === "no-model" ? "Nothing was learned yet: teach it below." : `${error.message}. ${error.action}`));
  }
}

function show(asked, answer) {
  const chosen = label ?? answer.label;
  const best = ranked(answer.scores).slice(0, SHOWN);
  fill($("try-result"),
    el("div", { class: "verdict", role: "group", "aria-label": "Labels and their scores; press one to see its words" },
      ...best.map(([name, value]) => el("button", { type: "button", "aria-pressed": String(name === chosen), onclick: () => { label = name; explain(); } },
        `${name} `, el("b", {}, score(value))))),
    el("p", { class: "marked", dir: "auto", tabindex: "0", role: "group", "aria-label": `The text, words marked that speak for ${chosen}` },
      ...runs(asked, answer.features, chosen).map(([part, strength]) => (strength === 0 ? part : mark(part, strength)))),
    el("ul", { class: "words", "aria-label": `Words that say most about ${chosen}` },
      ...strongest(answer.features, chosen, WORDS).map(({ text, shares, known }) => el("li", {},
        `${text} `, el("b", { class: shares[chosen] < 0 ? "worse" : "better" }, signed(shares[chosen])), known === false ? " (new)" : ""))));
}

function mark(part, strength) {
  return el("mark", { class: strength > 0 ? "for" : "against", "--depth": Math.abs(strength) }, part);
}

async function learn() {
  const [taught, as] = [text(), $("teach-label").value.trim()];
  if (!taught.trim() || !as) return setText($("teach-note"), "Write a text, and what it is.");
  setText($("teach-note"), "Learning …");
  try {
    const { learned } = await teach({ message_id: `page-${newId()}`, label: as, text: taught }, taught);
    const { now, error } = await learned;
    setText($("teach-note"), now ? `Learned. The model now says ${now.label}, ${score(now.score)}.` : `Sent, not shown yet: ${error.message}. ${error.action}`);
    explain();
  } catch (error) {
    setText($("teach-note"), `Not taken: ${error.message}. ${error.action}`);
  }
}

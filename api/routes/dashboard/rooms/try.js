// What does the model say of a text, and why? And: it is really this.

import { learned, newId, post, signed, withFields } from "../base/api.js";
import { $, announce, el, fill, setText } from "../base/dom.js";
import { fieldList, readFields } from "../base/fields.js";
import { cut, ranked, score, signed as withSign } from "../base/format.js";
import { describe } from "../base/learner.js";
import { strongest } from "../base/marks.js";
import { marked } from "../labelling/shown.js";
import { remember, trail, undo, whenChanged, whenUndone } from "../labelling/trail.js";

const WAIT_MS = 250;
const FEATURES = 200;
const SHOWN = 5; // labels
const WORDS = 8;
const FIELDS_ARE = "Fields are written as sender=a@b.example; amount=5.";
let timer = null;
let asked = 0;
let unsure = null; // what may have come through without an answer: sent again it counts once
let learner = ""; // what it says, unless it learns
let label = null; // whose words are marked; null: the best

export const trial = { name: "try", title: "Try a text", start, show: showGiven, model: setModel };

function start() {
  for (const input of [$("try-text"), $("try-fields")]) {
    input.addEventListener("input", () => {
      clearTimeout(timer);
      timer = setTimeout(() => { label = null; explain(); }, WAIT_MS);
    });
  }
  $("teach").addEventListener("click", learn);
  $("teach-undo").addEventListener("click", undo);
  whenUndone("teach", takeBack);
  whenChanged(showUndo);
  showUndo();
  $("teach-label").addEventListener("keydown", (event) => event.key === "Enter" && learn());
}

const text = () => $("try-text").value.toWellFormed();
const fields = () => readFields($("try-fields").value.toWellFormed());

async function explain() {
  const number = ++asked;
  if (!text().trim()) return fill($("try-result"));
  if (fields() === null) return fill($("try-result"), el("p", { class: "note" }, FIELDS_ARE));
  const body = { text: text(), ...withFields(fields()), features: FEATURES, ...(label === null ? {} : { labels: [label] }) };
  try {
    const answer = await post("explain", body);
    if (number !== asked) return;
    show(body, answer);
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
      ...marked(asked.text, { ...answer, length: asked.text.length }, chosen)),
    fieldList(asked.fields),
    el("ul", { class: "words", "aria-label": `Words that say most about ${chosen}` },
      ...strongest(answer.features, chosen, WORDS).map(({ text, field, share, known }) => el("li", {},
        `${[field, text].filter(Boolean).join(": ")} `, el("b", { class: share < 0 ? "worse" : "better" }, withSign(share)), known === false ? " (new)" : ""))));
}

/** A text that another room sends here: #try?text=... */
function showGiven({ text: given }) {
  if (!given || given === $("try-text").value) return;
  $("try-text").value = given;
  label = null;
  explain();
}

function setModel(model) {
  const { mood, text } = describe(model.learner);
  learner = mood === "good" ? "" : text;
}

/** Teach a text; what was taught here last is changed where it is the same text. */
async function learn() {
  const [taught, as] = [text(), $("teach-label").value.trim()];
  if (!taught.trim() || !as) return setText($("teach-note"), "Write a text, and what it is.");
  const written = $("try-fields").value;
  if (fields() === null) return setText($("teach-note"), FIELDS_ARE);
  const isSame = (step) => step.text === taught && (step.written ?? "") === written;
  const last = trail.done.findLast((step) => step.kind === "teach" && isSame(step));
  const step = unsure && isSame(unsure) && unsure.label === as ? unsure :
    { kind: "teach", text: taught, written, fields: fields(), label: as, before: last?.label ?? null, message: last?.message ?? `page-${newId()}`, id: newId() };
  setText($("teach-note"), "Sending …");
  const said = await sendLabel(step, { id: step.id, label: as }, "Not taken");
  unsure = said === null ? step : null;
  if (said === null) return;
  remember(step);
  await follow(said, step, "Learned");
}

/** Take a label back: the one before it holds again, or none; the model keeps what it learned of it. */
async function takeBack(step) {
  [$("try-text").value, $("try-fields").value, $("teach-label").value] = [step.text, step.written ?? "", step.label];
  setText($("teach-note"), "Taking it back …");
  const feedback = step.before === null ? { label: step.label, op: "retract" } : { label: step.before };
  const said = await sendLabel(step, feedback, "Not taken back");
  if (said === null) remember(step);
  else if (step.before !== null) await follow(said, step, `It is ${cut(step.before, 40)} again`);
  else setText($("teach-note"), "Taken back. The model has learned it, and keeps it until you teach another label, or until driftline rebuild.");
  explain();
}

/** Return the API's answer, or null where it does not take a label. */
async function sendLabel({ message, text: taught, fields: known }, feedback, refused) {
  try {
    return await post("feedback", signed({ message_id: message, text: taught, ...withFields(known), ...feedback }));
  } catch (error) {
    setText($("teach-note"), `${refused}: ${error.message}. ${error.action}`);
    return null;
  }
}

async function follow(sent, taught, done) {
  setText($("teach-note"), "Learning …");
  const { now, error } = await learned(sent, taught);
  const why = learner ? ` The learner: ${learner}.` : "";
  setText($("teach-note"), now ? `${done}. The model now says ${now.label}, ${score(now.score)}.` : `Sent, not shown yet: ${error.message}. ${error.action}${why}`);
  explain();
}

function showUndo() {
  const last = trail.done.at(-1);
  const isOurs = last?.kind === "teach";
  $("teach-undo").hidden = !isOurs;
  if (isOurs) $("teach-undo").setAttribute("aria-label", `Undo: ${cut(last.label, 40)}`);
}

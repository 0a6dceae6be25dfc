// How does something get onto the page? Texts only ever as text: there is no markup in any of this.

export const $ = (id) => document.getElementById(id);

/** Make an element. Attributes that are false or null are left out; `--name` sets a custom property. */
export function el(name, attributes = {}, ...children) {
  const element = document.createElement(name);
  for (const [key, value] of Object.entries(attributes)) {
    if (value === null || value === undefined || value === false) continue;
    if (key === "onclick") element.addEventListener("click", value);
    else if (key.startsWith("--")) element.style.setProperty(key, value);
    else element.setAttribute(key, value === true ? "" : value);
  }
  element.append(...children.filter((child) => child !== null && child !== undefined));
  return element;
}

/** Put new content in, unless it is what is there: so that focus and a reader's place stay. */
export function fill(parent, ...children) {
  const fresh = el("div", {}, ...children);
  if (parent.childNodes.length === fresh.childNodes.length) {
    const same = [...fresh.childNodes].every((node, i) => node.isEqualNode(parent.childNodes[i]));
    if (same) return;
  }
  parent.replaceChildren(...fresh.childNodes);
}

export function setText(element, text) {
  if (element.textContent !== text) element.textContent = text;
}

/** Say something to a screen reader. */
export function announce(text) {
  $("announcer").textContent = text;
}

/** Make a row of buttons of which one is chosen, moved through with the arrow keys. */
export function choice(parent, options, chosen, onChoose) {
  const buttons = options.map(([value, name]) =>
    el("button", { type: "button", role: "radio", onclick: () => choose(value) , "data-value": value}, name));
  const choose = (value) => {
    mark(value);
    onChoose(value);
  };
  const mark = (value) => {
    for (const button of buttons) {
      const is = button.dataset.value === value;
      button.setAttribute("aria-checked", String(is));
      button.tabIndex = is ? 0 : -1;
    }
  };
  parent.addEventListener("keydown", (event) => {
    const step = { ArrowRight: 1, ArrowDown: 1, ArrowLeft: -1, ArrowUp: -1 }[event.key];
    const at = buttons.indexOf(document.activeElement);
    if (!step || at < 0) return;
    event.preventDefault();
    const next = buttons[(at + step + buttons.length) % buttons.length];
    next.focus();
    choose(next.dataset.value);
  });
  mark(chosen);
  parent.replaceChildren(...buttons);
}

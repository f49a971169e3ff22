/** The prompts of this browser, to be used again, and examples to begin with. */

import { examples } from "./examples.js";
import { all, button, element, find } from "./page.js";
import { remember, remembered } from "./store.js";

const KEPT = 40;

export class Prompts {
  #past = remembered("prompts", /** @type {string[]} */ ([]));
  #at = -1;
  #draft = "";

  constructor() {
    this.field = /** @type {HTMLTextAreaElement} */ (find("#prompt"));
    this.menu = /** @type {HTMLDetailsElement} */ (find("#past"));
    this.field.addEventListener("keydown", (event) => this.#walk(event));
    this.field.addEventListener("input", () => (this.#at = -1));
    this.#show();
  }

  /** Offer examples for this model. */
  offer(/** @type {string} */ model) {
    const chips = examples(model).map((text) => button(text, () => this.use(text)));
    find("#chips").replaceChildren(...chips);
  }

  /** Remember a prompt that was used. */
  keep(/** @type {string} */ prompt) {
    this.#past = [prompt, ...this.#past.filter((one) => one !== prompt)].slice(0, KEPT);
    this.#at = -1;
    remember("prompts", this.#past);
    this.#show();
  }

  /** Put a prompt into the field. */
  use(/** @type {string} */ prompt) {
    this.field.value = prompt;
    this.field.dispatchEvent(new Event("input", { bubbles: true }));
    this.field.focus();
  }

  #show() {
    this.menu.hidden = this.#past.length === 0;
    const rows = this.#past.map((text) => {
      const row = element("li");
      row.append(
        button(text, () => {
          this.menu.open = false;
          this.use(text);
        }),
      );
      return row;
    });
    find("ul", this.menu).replaceChildren(...rows);
  }

  /** Alt with the arrow keys walks through earlier prompts. */
  #walk(/** @type {KeyboardEvent} */ event) {
    if (!event.altKey || (event.key !== "ArrowUp" && event.key !== "ArrowDown")) return;
    event.preventDefault();
    if (this.#at < 0) this.#draft = this.field.value;
    const step = event.key === "ArrowUp" ? 1 : -1;
    const at = Math.max(-1, Math.min(this.#past.length - 1, this.#at + step));
    this.use(at < 0 ? this.#draft : this.#past[at]);
    this.#at = at;
  }
}

/** Close menus when the visitor clicks elsewhere, or presses Escape in one. */
export function closeMenus(/** @type {Event} */ event) {
  let closed = false;
  for (const menu of all("details.menu[open]")) {
    if (event.type === "keydown" || !menu.contains(/** @type {Node} */ (event.target))) {
      menu.removeAttribute("open");
      closed = true;
    }
  }
  return closed;
}

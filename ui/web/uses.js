/** LoRAs, embeddings and ControlNets: a list of names to pick from, and what each one needs. */

import { all, copyOf, fill, find } from "./page.js";
import { Slot } from "./slot.js";

/**
 * One entry that was picked.
 * @typedef {object} Use
 * @property {string} name
 * @property {HTMLElement} element
 * @property {Slot|null} slot A ControlNet's picture.
 */

export class Uses {
  /** @type {Use[]} */
  #picked = [];
  /** @type {string[]} */
  #names = [];

  /**
   * @param {"loras"|"embeddings"|"controlnets"} kind
   * @param {(name: string) => void} added
   */
  constructor(kind, added = () => {}) {
    this.kind = kind;
    this.root = /** @type {HTMLDetailsElement} */ (find(`details[data-field=${kind}]`));
    this.adding = find(".adding", this.root);
    this.choice = /** @type {HTMLSelectElement} */ (find("select", this.adding));
    find("button", this.adding).addEventListener("click", () => {
      const name = this.choice.value;
      if (name) this.#add({ name });
      if (name) added(name);
    });
  }

  /** Offer these names. */
  offer(/** @type {{name: string}[]} */ entries) {
    this.#names = entries.map((entry) => entry.name);
    for (const none of all(".none", this.root)) none.hidden = entries.length > 0;
    this.#show();
  }

  /**
   * Return what is picked, as the service takes it.
   * @returns {any[]}
   */
  read() {
    return this.#picked.map(({ name, element: root }) => {
      if (this.kind === "embeddings") return name;
      const weight = number(".weight input", root);
      if (this.kind === "loras") return { name, weight };
      return { name, weight, start: number(".start", root), end: number(".end", root) };
    });
  }

  /**
   * Return the ControlNets' pictures, in their order; null where one is missing.
   * @returns {(Slot|null)[]}
   */
  slots() {
    return this.#picked.map(({ slot }) => (slot?.file ? slot : null));
  }

  /**
   * Pick what a picture was made with. ControlNets' pictures are not in a file, and stay as they are.
   * @param {any[]} values
   */
  write(values) {
    const slots = this.#picked.map(({ slot }) => slot);
    this.#picked = [];
    find(".uses", this.root).replaceChildren();
    values.forEach((value, index) => {
      const use = this.#add(typeof value === "string" ? { name: value } : value);
      const before = slots[index];
      if (use.slot && before?.file) use.slot.put(before.file, before.name);
    });
    this.#show();
    if (values.length) this.root.open = true;
  }

  /** @param {{name: string, weight?: number, start?: number, end?: number}} value */
  #add(value) {
    const made = find(".use", copyOf("use-template"));
    find("strong", made).textContent = value.name;
    const space = find(".slot", made);
    find(".weight", made).hidden = this.kind === "embeddings";
    find(".span", made).hidden = space.hidden = this.kind !== "controlnets";
    space.dataset.label = `Picture for ${value.name}`;
    for (const name of /** @type {const} */ (["weight", "start", "end"])) {
      const input = name === "weight" ? ".weight input" : `.${name}`;
      const given = value[name];
      if (given !== undefined) /** @type {HTMLInputElement} */ (find(input, made)).value = String(given);
    }
    const slot = this.kind === "controlnets" ? new Slot(space) : null;
    const use = { name: value.name, element: made, slot };
    find(".remove", made).addEventListener("click", () => {
      this.#picked = this.#picked.filter((one) => one !== use);
      made.remove();
      this.#show();
      this.choice.focus();
    });
    this.#picked.push(use);
    find(".uses", this.root).append(made);
    this.#show();
    return use;
  }

  #show() {
    const used = new Set(this.#picked.map(({ name }) => name));
    // the same ControlNet may act twice, on two pictures
    const left = this.#names.filter((name) => this.kind === "controlnets" || !used.has(name));
    fill(this.choice, left.map((name) => /** @type {[string, string]} */ ([name, name])));
    this.adding.hidden = left.length === 0;
    find(".count", this.root).textContent = used.size ? String(this.#picked.length) : "";
  }
}

/** @param {string} selector @param {HTMLElement} root */
function number(selector, root) {
  const value = /** @type {HTMLInputElement} */ (find(selector, root)).value;
  return value === "" ? undefined : Number(value);
}

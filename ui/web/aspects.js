/** The picture's shape: presets of the model's own area, or a size of the visitor's. */

import { all, element, find } from "./page.js";

/** @type {[string, number][]} name, and width by height */
const SHAPES = [
  ["1:1", 1],
  ["3:2", 3 / 2],
  ["2:3", 2 / 3],
  ["16:9", 16 / 9],
  ["9:16", 9 / 16],
];

/**
 * Return width and height of this shape, about as many pixels as the model was made for.
 * @param {number} ratio
 * @param {{width: number, height: number}} model
 * @returns {[number, number]}
 */
export function sized(ratio, model) {
  const area = model.width * model.height;
  const multiple = area >= 512 * 512 ? 16 : 8; // valid for every family
  const side = (/** @type {number} */ length) => Math.max(1, Math.round(length / multiple)) * multiple;
  return [side(Math.sqrt(area * ratio)), side(Math.sqrt(area / ratio))];
}

export class Aspects {
  constructor() {
    this.root = find("#aspects");
    this.width = /** @type {HTMLInputElement} */ (find("#width"));
    this.height = /** @type {HTMLInputElement} */ (find("#height"));
    this.root.addEventListener("change", () => this.#chosen());
  }

  /**
   * Offer the shapes that a model can have.
   * @param {any} model
   */
  offer(model) {
    const size = { width: model.width ?? 512, height: model.height ?? 512 };
    /** @type {[string, string, string][]} value, name, detail */
    const shapes = model.sizes // a compiled model has these and no others
      ? model.sizes.map((/** @type {number[]} */ [height, width]) => [`${width}x${height}`, `${width} × ${height}`, ""])
      : SHAPES.map(([name, ratio]) => {
          const [width, height] = sized(ratio, size);
          return [`${width}x${height}`, name, `${width}×${height}`];
        });
    const chosen = this.#value();
    const options = [["", "Auto", ""], ...shapes, ["own", "Other", "…"]].map((shape) =>
      choice(/** @type {[string, string, string]} */ (shape)),
    );
    this.root.replaceChildren(find("legend", this.root), ...options);
    this.#choose(chosen);
  }

  /** Choose the shape that belongs to the fields' width and height. */
  follow() {
    const size = this.width.value || this.height.value ? `${this.width.value}x${this.height.value}` : "";
    this.#choose(size);
  }

  #value() {
    return /** @type {HTMLInputElement|null} */ (this.root.querySelector(":checked"))?.value ?? "";
  }

  /** @param {string} value */
  #choose(value) {
    const options = all("input", this.root);
    const there = options.some((one) => /** @type {HTMLInputElement} */ (one).value === value);
    for (const one of options) {
      const input = /** @type {HTMLInputElement} */ (one);
      input.checked = input.value === (there ? value : "own");
    }
    find("#sizes").hidden = this.#value() !== "own";
  }

  #chosen() {
    const value = this.#value();
    find("#sizes").hidden = value !== "own";
    if (value === "own") this.width.focus();
    else [this.width.value, this.height.value] = value ? value.split("x") : ["", ""];
  }
}

/** @param {[string, string, string]} shape */
function choice([value, name, detail]) {
  const label = document.createElement("label");
  const input = document.createElement("input");
  const text = element("span", name);
  Object.assign(input, { type: "radio", name: "aspect", value });
  if (detail) text.append(element("small", detail));
  label.append(input, text);
  return label;
}

/** A place for one picture: choose, drop, or paste it, or let the page put it there. */

import { copyOf, find } from "./page.js";

export class Slot {
  /** @type {Blob|null} */
  file = null;
  name = "";

  /**
   * @param {HTMLElement} root An empty element; its `data-label` says what belongs here.
   * @param {() => void} changed
   */
  constructor(root, changed = () => {}) {
    root.append(copyOf("slot-template"));
    this.changed = changed;
    this.target = find(".target", root);
    this.image = /** @type {HTMLImageElement} */ (find("img", root));
    this.clearing = /** @type {HTMLButtonElement} */ (find(".clear", root));
    find(".label", root).textContent = root.dataset.label ?? "Picture";
    const input = /** @type {HTMLInputElement} */ (find("input", root));
    input.addEventListener("change", () => {
      if (input.files?.[0]) this.put(input.files[0], input.files[0].name);
      input.value = ""; // the same file may be chosen again
    });
    this.clearing.addEventListener("click", () => this.clear());
    for (const name of ["dragenter", "dragover", "dragleave", "drop"]) {
      this.target.addEventListener(name, (event) => this.#drag(/** @type {DragEvent} */ (event)));
    }
  }

  /**
   * Put a picture here.
   * @param {Blob} file
   * @param {string} name
   */
  put(file, name) {
    if (!file.type.startsWith("image/")) return;
    this.#release();
    this.file = file;
    this.name = name;
    this.image.src = URL.createObjectURL(file);
    this.image.alt = name;
    this.image.hidden = this.clearing.hidden = false;
    this.changed();
  }

  /** Empty it. */
  clear() {
    this.#release();
    this.file = null;
    this.image.removeAttribute("src");
    this.image.alt = "";
    this.image.hidden = this.clearing.hidden = true;
    this.changed();
  }

  #release() {
    if (this.image.src.startsWith("blob:")) URL.revokeObjectURL(this.image.src);
  }

  /** @param {DragEvent} event */
  #drag(event) {
    event.preventDefault();
    event.stopPropagation(); // not for the whole page, which reads settings
    this.target.classList.toggle("over", event.type === "dragenter" || event.type === "dragover");
    const file = event.type === "drop" ? event.dataTransfer?.files[0] : undefined;
    if (file) this.put(file, file.name);
  }
}

/** A picture as large as the window; the arrow keys go on to the ones beside it. */

import { all, find } from "./page.js";
import { show, source } from "./pictures.js";
import { fileName, summary, title } from "./words.js";

/** @typedef {import("./pictures.js").Picture} Picture */

export class Lightbox {
  /** @type {Picture|null} */
  #picture = null;

  /**
   * @param {(picture: Picture|null, step: number) => Picture|null} beside
   * @param {(picture: Picture) => void} closed It gets the picture that was seen last.
   */
  constructor(beside, closed) {
    this.beside = beside;
    this.dialog = /** @type {HTMLDialogElement} */ (find("#lightbox"));
    this.dialog.addEventListener("keydown", (event) => {
      if (event.key === "ArrowLeft") this.#move(-1);
      if (event.key === "ArrowRight") this.#move(1);
    });
    this.dialog.addEventListener("close", () => this.#picture && closed(this.#picture));
    for (const button of all("[data-move]", this.dialog)) {
      button.addEventListener("click", () => this.#move(Number(button.dataset.move)));
    }
    find("[data-close]", this.dialog).addEventListener("click", () => this.dialog.close());
    find("img", this.dialog).addEventListener("click", () => this.dialog.close());
  }

  /** Open it with this picture. */
  open(/** @type {Picture} */ picture) {
    this.#show(picture);
    this.dialog.showModal();
  }

  #move(/** @type {number} */ step) {
    const next = this.beside(this.#picture, step);
    if (next) this.#show(next);
  }

  /** @param {Picture} picture */
  async #show(picture) {
    this.#picture = picture;
    const image = /** @type {HTMLImageElement} */ (find("img", this.dialog));
    const link = /** @type {HTMLAnchorElement} */ (find("a", this.dialog));
    image.alt = title(picture);
    find("p", this.dialog).textContent = `${title(picture)} · ${summary(picture)}`;
    for (const button of all("[data-move]", this.dialog)) {
      const there = this.beside(picture, Number(button.dataset.move));
      /** @type {HTMLButtonElement} */ (button).disabled = !there;
    }
    await show(image, picture);
    const address = await source(picture).catch(() => "#");
    if (this.#picture !== picture) return;
    link.download = fileName(picture);
    link.href = address;
  }
}

/** What was made: thumbnails of the stored jobs' pictures, newest first. */

import * as api from "./api.js";
import { all, element, find } from "./page.js";
import { picturesOf, show } from "./pictures.js";
import { title } from "./words.js";

const PER_PAGE = 24;

/** @typedef {import("./pictures.js").Picture} Picture */

export class History {
  /** @type {Picture[]} newest first */
  pictures = [];
  #next = "";
  /** Counts the calls of `load`: a page that an earlier one asked for comes too late. */
  #loads = 0;

  /**
   * @param {() => string} prefix What the ids of the page's own jobs begin with.
   * @param {(picture: Picture) => void} chosen
   * @param {(act: () => Promise<void>) => Promise<void>} attempt It does something, and says what went wrong.
   */
  constructor(prefix, chosen, attempt) {
    this.prefix = prefix;
    this.chosen = chosen;
    this.root = find("#history");
    this.grid = find("ul", this.root);
    this.others = /** @type {HTMLInputElement} */ (find("#others"));
    this.others.addEventListener("change", () => attempt(() => this.load()));
    find(".more", this.root).addEventListener("click", () => attempt(() => this.#more()));
  }

  /** Show the newest pictures. */
  async load() {
    this.#loads += 1;
    this.pictures = [];
    this.#next = "";
    this.grid.replaceChildren();
    await this.#more();
  }

  /** Put the pictures of a job that has just ended before all others. */
  add(/** @type {any} */ job) {
    const found = this.#missing(picturesOf(job));
    this.pictures.unshift(...found);
    this.grid.prepend(...found.map((picture) => this.#thumbnail(picture)));
    this.#tidy();
  }

  /** Mark the picture that is shown large. */
  mark(/** @type {Picture|null} */ picture) {
    for (const one of all("button", this.grid)) {
      if (one.dataset.id === picture?.id) one.setAttribute("aria-current", "true");
      else one.removeAttribute("aria-current");
    }
  }

  /** Return the picture that lies so many places further on; null at the ends. */
  beside(/** @type {Picture|null} */ picture, /** @type {number} */ step) {
    const at = this.pictures.findIndex(({ id }) => id === picture?.id);
    return at < 0 ? null : this.pictures[at + step] ?? null;
  }

  async #more() {
    const own = this.others.checked ? "" : `&prefix=${this.prefix()}`;
    const cursor = this.#next && `&cursor=${this.#next}`;
    const loads = this.#loads;
    const page = await api.json(`jobs?state=succeeded&limit=${PER_PAGE}${own}${cursor}`);
    if (loads !== this.#loads) return;
    const found = this.#missing(page.jobs.flatMap(picturesOf));
    this.#next = page.next ?? "";
    this.pictures.push(...found);
    this.grid.append(...found.map((picture) => this.#thumbnail(picture)));
    this.#tidy();
  }

  /** Return those that are not shown yet. */
  #missing(/** @type {Picture[]} */ pictures) {
    return pictures.filter((picture) => !this.pictures.some(({ id }) => id === picture.id));
  }

  #tidy() {
    find(".empty", this.root).hidden = this.pictures.length > 0;
    find(".more", this.root).hidden = !this.#next;
  }

  /** @param {Picture} picture */
  #thumbnail(picture) {
    const row = element("li");
    const button = element("button");
    const image = element("img");
    button.type = "button";
    button.title = title(picture);
    button.dataset.id = picture.id;
    image.alt = title(picture);
    image.loading = "lazy";
    show(image, picture);
    button.addEventListener("click", () => this.chosen(picture));
    button.append(image);
    row.append(button);
    return row;
  }
}

/** The large picture: one that is finished, one in the making, or two to compare. */

import { find } from "./page.js";
import { show, source } from "./pictures.js";
import { fileName, progress, summary, title } from "./words.js";

/** @typedef {import("./pictures.js").Picture} Picture */

export class Stage {
  /** @type {Picture|null} */
  picture = null;
  /** Whether the picture in the making is watched, and not a finished one. */
  live = false;

  constructor() {
    this.root = find("#stage");
    this.frame = find(".frame", this.root);
    this.image = /** @type {HTMLImageElement} */ (find(".shown", this.root));
    this.open = /** @type {HTMLButtonElement} */ (find(".open", this.root));
    this.before = /** @type {HTMLImageElement} */ (find(".before", this.root));
    this.divider = /** @type {HTMLInputElement} */ (find(".divider", this.root));
    this.bar = find(".progress", this.root);
    this.about = find(".about", this.root);
    this.divider.addEventListener("input", () => this.#divide());
  }

  /** Whether two pictures are compared. */
  get comparing() {
    return this.frame.dataset.state === "comparing";
  }

  /** Show a finished picture. */
  async show(/** @type {Picture} */ picture) {
    this.picture = picture;
    this.live = false;
    this.#endProgress();
    this.stopComparing();
    this.#state("picture");
    this.image.alt = title(picture);
    this.#describe(picture);
    await show(this.image, picture);
    const address = await source(picture).catch(() => "#");
    if (this.picture !== picture) return;
    const link = /** @type {HTMLAnchorElement} */ (find("[data-action=download]", this.root));
    link.download = fileName(picture);
    link.href = address;
  }

  /**
   * Show how far a job is. The picture before stays until there is a preview.
   * @param {any} job
   * @param {string|null} preview An address.
   */
  follow(job, preview) {
    if (!this.live) return;
    this.stopComparing();
    const bar = /** @type {HTMLProgressElement} */ (find("progress", this.bar));
    this.bar.hidden = false;
    bar.value = job.steps ? job.step / job.steps : 0;
    find(".line", this.bar).textContent = progress(job);
    document.title = `${Math.round(bar.value * 100)} % · Stable Diffusion`;
    this.open.disabled = true;
    if (!preview) return;
    this.#state("live");
    this.about.hidden = true;
    this.image.dataset.picture = "";
    this.image.alt = "Preview";
    this.image.src = preview;
  }

  /** Nothing is made any more: show the last finished picture again. */
  rest() {
    this.#endProgress();
    this.live = false;
    if (this.picture) this.show(this.picture);
    else this.#state("empty");
  }

  /** Say something about the picture, such as that it was copied. */
  note(/** @type {string} */ text) {
    find(".note", this.root).textContent = text;
  }

  /** Compare the picture with another one, by its address. */
  compare(/** @type {string} */ address, /** @type {string} */ name) {
    this.#state("comparing");
    this.before.src = address;
    this.before.alt = name;
    this.before.hidden = this.divider.hidden = false;
    find("[data-action=compare]", this.root).setAttribute("aria-pressed", "true");
    this.note(`Left: ${name}. Choose another picture below to compare with that one.`);
    this.#divide();
  }

  /** Show one picture alone again. */
  stopComparing() {
    if (!this.comparing) return;
    this.#state("picture");
    this.before.hidden = this.divider.hidden = true;
    find("[data-action=compare]", this.root).setAttribute("aria-pressed", "false");
    this.note("");
  }

  #divide() {
    this.frame.style.setProperty("--at", `${this.divider.value}%`);
  }

  #endProgress() {
    this.bar.hidden = true;
    this.open.disabled = false;
    document.title = "Stable Diffusion";
  }

  /** @param {"empty"|"picture"|"live"|"comparing"} state */
  #state(state) {
    this.frame.dataset.state = state;
    find(".empty", this.frame).hidden = state !== "empty";
    this.open.hidden = state === "empty";
    this.about.hidden = state === "empty" || state === "live";
  }

  /** @param {Picture} picture */
  #describe(picture) {
    find(".title", this.root).textContent = title(picture);
    find(".facts", this.root).textContent = summary(picture);
    this.note(picture.filtered ? "The safety checker objected to this picture." : picture.hint);
    const only = picture.task === "upscale";
    find("[data-action=recall]", this.root).hidden = only;
  }
}

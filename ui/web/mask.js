/** The mask: half-transparent red over the picture, painted with mouse, pen or finger. */

import { all, find } from "./page.js";

/** The colour of the strokes; the canvas is shown half-transparent by the style sheet. */
const RED = "#ff2d3d";
/**
 * @typedef {object} Stroke
 * @property {"paint"|"erase"|"invert"} kind
 * @property {number} width In pixels of the picture.
 * @property {[number, number][]} points
 */

export class Mask {
  /** @type {Stroke[]} */
  #strokes = [];
  /** @type {Stroke|null} */
  #current = null;
  #erasing = false;

  /**
   * @param {HTMLElement} root
   * @param {() => void} changed
   */
  constructor(root, changed = () => {}) {
    this.root = root;
    this.changed = changed;
    this.image = /** @type {HTMLImageElement} */ (find("img", root));
    this.canvas = /** @type {HTMLCanvasElement} */ (find("canvas", root));
    this.size = /** @type {HTMLInputElement} */ (find("#brush-size", root));
    this.context = /** @type {CanvasRenderingContext2D} */ (this.canvas.getContext("2d"));
    this.canvas.addEventListener("pointerdown", (event) => this.#begin(event));
    this.canvas.addEventListener("pointermove", (event) => this.#go(event));
    for (const name of ["pointerup", "pointercancel"]) {
      this.canvas.addEventListener(name, () => this.#end());
    }
    for (const tool of all("[data-tool]", root)) {
      tool.addEventListener("click", () => this.#use(tool.dataset.tool ?? ""));
    }
    this.image.addEventListener("load", () => this.#fit());
  }

  /** Show a picture to paint over, by its address; without one, nothing. */
  show(/** @type {string} */ address) {
    this.root.hidden = !address;
    if (this.image.src !== address) {
      this.#strokes = [];
      if (address) this.image.src = address;
      else this.image.removeAttribute("src");
    }
  }

  /** Whether nothing is painted. */
  get empty() {
    const { width, height } = this.canvas;
    if (!this.#strokes.length || !width) return true;
    const pixels = this.context.getImageData(0, 0, width, height).data;
    return !pixels.some((value, index) => index % 4 === 3 && value > 127);
  }

  /**
   * Return the mask as a PNG of the picture's size: white where it is painted, else black.
   * @returns {Promise<Blob>}
   */
  async file() {
    const { width, height } = this.canvas;
    const out = new OffscreenCanvas(width, height);
    const context = /** @type {OffscreenCanvasRenderingContext2D} */ (out.getContext("2d"));
    const pixels = this.context.getImageData(0, 0, width, height);
    for (let at = 0; at < pixels.data.length; at += 4) {
      pixels.data.fill(pixels.data[at + 3] > 127 ? 255 : 0, at, at + 3);
      pixels.data[at + 3] = 255;
    }
    context.putImageData(pixels, 0, 0);
    return out.convertToBlob({ type: "image/png" });
  }

  #fit() {
    this.canvas.width = this.image.naturalWidth;
    this.canvas.height = this.image.naturalHeight;
    this.#redraw();
  }

  /** @param {PointerEvent} event */
  #begin(event) {
    if (event.button !== 0) return;
    event.preventDefault();
    this.canvas.setPointerCapture(event.pointerId);
    const width = (Number(this.size.value) / 100) * Math.max(this.canvas.width, this.canvas.height);
    this.#current = { kind: this.#erasing ? "erase" : "paint", width, points: [this.#at(event)] };
    this.#strokes.push(this.#current);
    this.#draw(this.#current, 0);
  }

  /** @param {PointerEvent} event */
  #go(event) {
    if (!this.#current) return;
    const from = this.#current.points.length - 1;
    const moves = event.getCoalescedEvents?.() ?? [];
    for (const move of moves.length ? moves : [event]) this.#current.points.push(this.#at(move));
    this.#draw(this.#current, from);
  }

  #end() {
    if (!this.#current) return;
    this.#current = null;
    this.changed();
  }

  /** @param {PointerEvent} event @returns {[number, number]} */
  #at(event) {
    const box = this.canvas.getBoundingClientRect();
    return [
      ((event.clientX - box.left) / box.width) * this.canvas.width,
      ((event.clientY - box.top) / box.height) * this.canvas.height,
    ];
  }

  /** Draw a stroke from this point of it on. */
  #draw(/** @type {Stroke} */ stroke, /** @type {number} */ from) {
    const { context, canvas } = this;
    context.save();
    context.strokeStyle = context.fillStyle = RED;
    if (stroke.kind === "invert") {
      context.globalCompositeOperation = "xor";
      context.fillRect(0, 0, canvas.width, canvas.height);
    } else {
      context.globalCompositeOperation = stroke.kind === "erase" ? "destination-out" : "source-over";
      context.lineWidth = stroke.width;
      context.lineCap = context.lineJoin = "round";
      context.beginPath();
      context.moveTo(...stroke.points[from]);
      for (const point of stroke.points.slice(from)) context.lineTo(...point);
      context.stroke();
    }
    context.restore();
  }

  #redraw() {
    this.context.clearRect(0, 0, this.canvas.width, this.canvas.height);
    for (const stroke of this.#strokes) this.#draw(stroke, 0);
  }

  /** @param {string} tool */
  #use(tool) {
    if (tool === "brush" || tool === "eraser") {
      this.#erasing = tool === "eraser";
      for (const one of all("[aria-pressed]", this.root)) {
        one.setAttribute("aria-pressed", String(one.dataset.tool === tool));
      }
      return;
    }
    if (tool === "undo") this.#strokes.pop();
    if (tool === "clear") this.#strokes = [];
    if (tool === "invert") this.#strokes.push({ kind: "invert", width: 0, points: [] });
    this.#redraw();
    this.changed();
  }
}

/** The fields: filled by what the service offers, read as a request, written from a picture. */

import { Aspects } from "./aspects.js";
import { modelOf } from "./catalog.js";
import * as errors from "./errors.js";
import { Mask } from "./mask.js";
import { all, fill, find } from "./page.js";
import { essential } from "./parameters.js";
import { Prompts } from "./prompts.js";
import { Slot } from "./slot.js";
import { Uses } from "./uses.js";

/**
 * @typedef {"txt2img"|"img2img"|"inpaint"|"upscale"} Task
 * @typedef {{name: string, data: Blob, fileName: string}} File
 * @typedef {{task: Task, parameters: Record<string, any>, files: File[]}} Order
 * @typedef {HTMLInputElement|HTMLSelectElement|HTMLTextAreaElement} Control
 */

const NUMBERS = ["num_inference_steps", "guidance_scale", "num_images_per_prompt", "strength", "scale"];
const TEXTS = ["prompt", "negative_prompt", "model", "scheduler", "upscaler"];
/** Whole numbers that may be empty. What is no number goes on as it is: the service refuses it. */
const WHOLE = ["width", "height", "seed"];
/** Fields whose value follows the model, until the visitor changes them. */
const BY_MODEL = ["num_inference_steps", "guidance_scale"];
/** What the page chooses a second pass with; another one is kept as JSON. */
const SECOND_PASS = { strength: 0.7 };

export class Form {
  /** @type {import("./catalog.js").Catalog|null} */
  catalog = null;

  constructor() {
    this.root = /** @type {HTMLFormElement} */ (find("#form"));
    this.settings = /** @type {HTMLDetailsElement} */ (find("#settings"));
    this.prompts = new Prompts();
    this.aspects = new Aspects();
    this.mask = new Mask(find("#painter"), errors.clear);
    this.slot = new Slot(find("#img-slot"), () => this.#showTask());
    this.uses = {
      loras: new Uses("loras"),
      embeddings: new Uses("embeddings", (name) => this.#writeWord(name)),
      controlnets: new Uses("controlnets"),
    };
    for (const radio of all("[name=task]")) radio.addEventListener("change", () => this.#showTask());
    for (const range of all("[data-of]")) this.#pair(/** @type {HTMLInputElement} */ (range));
    control("model").addEventListener("change", () => this.#fitModel());
    control("upscaler").addEventListener("change", () => this.#fitUpscaler());
    control("seed").addEventListener("input", () => this.lock(control("seed").value !== ""));
    this.root.addEventListener("input", errors.clear);
    this.#showTask();
  }

  /** @returns {Task} */
  get task() {
    return /** @type {Task} */ (/** @type {HTMLInputElement} */ (find("[name=task]:checked")).value);
  }

  set task(task) {
    /** @type {HTMLInputElement} */ (find(`[name=task][value=${task}]`)).checked = true;
    this.#showTask();
  }

  /** Whether the seed stays. */
  get locked() {
    return find("#lock").getAttribute("aria-pressed") === "true";
  }

  /** Keep the seed, or take a new one each time. */
  lock(/** @type {boolean} */ keep) {
    find("#lock").setAttribute("aria-pressed", String(keep));
    find("#lock").textContent = keep ? "Locked" : "Lock";
  }

  /**
   * Offer what the service has.
   * @param {import("./catalog.js").Catalog} catalog
   */
  offer(catalog) {
    this.catalog = catalog;
    for (const name of [...NUMBERS, ...BY_MODEL]) this.#limit(name, catalog.limits[name] ?? {});
    fill(select("model"), named(catalog.models));
    find("#model-field").hidden = catalog.models.length < 2;
    const upscalers = catalog.upscalers.map(
      (one) => /** @type {[string, string]} */ ([one.name, one.scale ? `${one.name} (${one.scale}×)` : one.name]),
    );
    fill(select("upscaler"), upscalers);
    fill(select("hires-upscaler"), [["latent", "latent"], ...named(catalog.upscalers)]);
    for (const kind of /** @type {const} */ (["loras", "embeddings", "controlnets"])) {
      this.uses[kind].offer(catalog[kind]);
    }
    this.#fitModel();
    this.#fitUpscaler();
  }

  /** Put everything back to the defaults; the prompt stays. */
  reset() {
    const prompt = control("prompt").value;
    const task = this.task;
    this.root.reset();
    for (const uses of Object.values(this.uses)) uses.write([]);
    for (const name of BY_MODEL) delete control(name).dataset.standard;
    this.lock(false);
    if (this.catalog) this.#fitModel();
    this.aspects.follow();
    this.task = task;
    control("prompt").value = prompt;
    this.#align();
    errors.clear();
  }

  /**
   * Return what is filled in; null where something is missing, which the page then says.
   * @returns {Promise<Order|null>}
   */
  async read() {
    errors.clear();
    const task = this.task;
    if (!this.#complete(task)) return null;
    const more = this.#further(task);
    if (!more) return null;
    const parameters = { ...this.#fields(task), ...more, output_format: "png" };
    return { task, parameters, files: await this.#files(task) };
  }

  /**
   * Fill the fields with the parameters of a picture.
   * @param {Record<string, any>} parameters
   * @param {Task} task
   */
  write(parameters, task) {
    const catalog = this.catalog;
    if (!catalog) return;
    const { hires, ...rest } = essential(parameters, catalog);
    this.reset();
    this.task = task;
    for (const name of [...TEXTS, ...NUMBERS, ...WHOLE]) {
      const value = parameters[name];
      if (value !== undefined && value !== null) control(name).value = String(value);
      delete rest[name];
    }
    if (!select("model").value) select("model").value = catalog.models[0].name;
    for (const kind of /** @type {const} */ (["loras", "embeddings", "controlnets"])) {
      this.uses[kind].write(rest[kind] ?? []);
      delete rest[kind];
    }
    if (hires && !this.#writeHires(hires, parameters)) rest.hires = hires;
    control("more").value = Object.keys(rest).length ? JSON.stringify(rest) : "";
    this.lock(control("seed").value !== "");
    this.#samplers(parameters.scheduler);
    this.aspects.follow();
    this.#align();
  }

  // -- reading ------------------------------------------------------------------------------

  /** @param {Task} task */
  #complete(task) {
    if (task !== "txt2img" && !this.slot.file) return !errors.beside("img", "Please put a picture here first.");
    if (task === "inpaint" && this.mask.empty) {
      return !errors.beside("mask", "Please paint over what is to change.");
    }
    if (task === "upscale") return true;
    if (control("prompt").value.trim() === "") {
      return !errors.beside("prompt", "Please write what the picture should show.");
    }
    if (this.uses.controlnets.slots().includes(null)) {
      return !errors.beside("controlnets", "Each ControlNet needs a picture.");
    }
    for (const name of NUMBERS) {
      const input = /** @type {HTMLInputElement} */ (control(name));
      if (input.validity.badInput) return !errors.beside(name, "This has to be a number.");
    }
    return true;
  }

  /** @param {Task} task @returns {Record<string, any>} */
  #fields(task) {
    /** @type {Record<string, any>} */
    const found = {};
    for (const name of [...TEXTS, ...NUMBERS, ...WHOLE]) {
      const { value } = control(name);
      if (value !== "" && takes(name, task)) found[name] = TEXTS.includes(name) ? value : number(value);
    }
    if (task === "upscale") return found;
    for (const [kind, uses] of Object.entries(this.uses)) {
      const picked = uses.read();
      if (picked.length) found[kind] = picked;
    }
    const scale = Number(control("hires-scale").value || 1);
    if (task !== "inpaint" && scale !== 1) {
      found.hires = { scale, upscaler: select("hires-upscaler").value || "latent" };
    }
    return found;
  }

  /** @param {Task} task @returns {Record<string, any>|null} */
  #further(task) {
    const text = control("more").value.trim();
    if (!text || task === "upscale") return {};
    try {
      const value = JSON.parse(text);
      if (value && typeof value === "object" && !Array.isArray(value)) return value;
    } catch {
      // said below
    }
    errors.beside("more", 'This has to be a JSON object, such as {"guidance_rescale": 0.7}.');
    return null;
  }

  /** @param {Task} task @returns {Promise<File[]>} */
  async #files(task) {
    /** @type {File[]} */
    const files = [];
    if (task !== "txt2img" && this.slot.file) {
      files.push({ name: "img", data: this.slot.file, fileName: this.slot.name || "img" });
    }
    if (task === "inpaint") files.push({ name: "mask", data: await this.mask.file(), fileName: "mask.png" });
    if (task === "upscale") return files;
    for (const slot of this.uses.controlnets.slots()) {
      if (slot?.file) files.push({ name: "control", data: slot.file, fileName: slot.name || "control" });
    }
    return files;
  }

  // -- showing ------------------------------------------------------------------------------

  #showTask() {
    const { task } = this;
    for (const part of all("[data-tasks]")) {
      part.hidden = !(part.dataset.tasks ?? "").split(" ").includes(task);
    }
    this.mask.show(task === "inpaint" && this.slot.file ? this.slot.image.src : "");
    find("#compose").classList.toggle("with-painter", task === "inpaint" && this.slot.file !== null);
    find("#generate").textContent = task === "upscale" ? "Upscale" : "Generate";
    find("#chips").hidden = task !== "txt2img";
    errors.clear();
  }

  #fitModel() {
    const { catalog } = this;
    if (!catalog) return;
    const model = modelOf(catalog, select("model").value);
    const defaults = model.defaults ?? {};
    for (const name of BY_MODEL) {
      const field = control(name);
      const untouched = field.value === "" || field.value === field.dataset.standard;
      field.dataset.standard = String(defaults[name] ?? "");
      if (untouched) field.value = field.dataset.standard;
    }
    this.#samplers(select("scheduler").value);
    this.aspects.offer(model);
    this.prompts.offer(model.name);
    this.#align();
  }

  /** Offer the samplers that fit the model. */
  #samplers(/** @type {string|undefined} */ chosen) {
    const { catalog } = this;
    if (!catalog) return;
    const model = modelOf(catalog, select("model").value);
    const own = model.defaults?.scheduler;
    const label = catalog.samplers.find((one) => one.name === own)?.label;
    const fitting = catalog.samplers.filter(
      (one) => !model.prediction || !one.predictions || one.predictions.includes(model.prediction),
    );
    const options = fitting.map((one) => /** @type {[string, string]} */ ([one.name, one.label ?? one.name]));
    fill(select("scheduler"), [["", label ? `Model's own (${label})` : "Model's own"], ...options]);
    select("scheduler").value = options.some(([name]) => name === chosen) ? chosen ?? "" : "";
  }

  #fitUpscaler() {
    const one = this.catalog?.upscalers.find((entry) => entry.name === select("upscaler").value);
    if (one?.scale) control("scale").value = String(one.scale);
  }

  /** @param {any} hires @param {Record<string, any>} parameters */
  #writeHires(hires, parameters) {
    const usual = { ...SECOND_PASS, num_inference_steps: parameters.num_inference_steps };
    const { scale, upscaler, ...rest } = hires;
    if (Object.entries(rest).some(([name, value]) => usual[/** @type {keyof typeof usual} */ (name)] !== value)) {
      return false;
    }
    control("hires-scale").value = String(scale);
    select("hires-upscaler").value = upscaler ?? "latent";
    find("details[data-field=hires]").setAttribute("open", "");
    return true;
  }

  /** An embedding acts where its name is written. */
  #writeWord(/** @type {string} */ name) {
    const prompt = control("prompt");
    const words = `${prompt.value} ${control("negative_prompt").value}`;
    if (!words.includes(name)) prompt.value = `${prompt.value.trimEnd()} ${name}`.trimStart();
  }

  /** @param {string} name @param {any} limits */
  #limit(name, limits) {
    const input = /** @type {HTMLInputElement} */ (control(name));
    if (limits.minimum !== undefined) input.min = String(limits.minimum);
    if (limits.maximum !== undefined) input.max = String(limits.maximum);
  }

  /** Let a slider and its number follow each other. */
  #pair(/** @type {HTMLInputElement} */ range) {
    const field = control(range.dataset.of ?? "");
    const label = find(`label[for=${field.id}]`).textContent ?? "";
    range.setAttribute("aria-label", `${label}, slider`);
    range.addEventListener("input", () => (field.value = range.value));
    field.addEventListener("input", () => (range.value = field.value));
  }

  #align() {
    for (const range of all("[data-of]")) {
      /** @type {HTMLInputElement} */ (range).value = control(range.dataset.of ?? "").value;
    }
  }
}

/** @param {string} name @returns {Control} */
function control(name) {
  return /** @type {Control} */ (find(`#${name}`));
}

/** @param {string} name */
function select(name) {
  return /** @type {HTMLSelectElement} */ (control(name));
}

/** @param {any[]} entries @returns {[string, string][]} */
function named(entries) {
  return entries.map(({ name }) => [name, name]);
}

/** Whether a task has this parameter: whether its field is shown for it. */
function takes(/** @type {string} */ name, /** @type {Task} */ task) {
  for (let part = control(name).closest("[data-tasks]"); part; part = part.parentElement?.closest("[data-tasks]") ?? null) {
    if (!(/** @type {HTMLElement} */ (part).dataset.tasks ?? "").split(" ").includes(task)) return false;
  }
  return true;
}

/** @param {string} text */
function number(text) {
  const value = Number(text);
  return Number.isNaN(value) ? text : value;
}

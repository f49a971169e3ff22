/** The page: what happens when the visitor does something, or the service says something. */

import * as api from "./api.js";
import { load } from "./catalog.js";
import { copyText } from "./clipboard.js";
import * as errors from "./errors.js";
import { Form } from "./form.js";
import { History } from "./history.js";
import { askForKey } from "./key.js";
import { Lightbox } from "./lightbox.js";
import { all, find } from "./page.js";
import { essential } from "./parameters.js";
import { blob, picturesOf, source } from "./pictures.js";
import { closeMenus } from "./prompts.js";
import { Queue } from "./queue.js";
import { listen, parametersIn } from "./recall.js";
import { WRITERS } from "./snippets.js";
import { Stage } from "./stage.js";
import { browserName } from "./store.js";
import { fileName, modelName, title } from "./words.js";

/** @typedef {import("./pictures.js").Picture} Picture */

/** Milliseconds between looks at a service that is not ready. */
const RETRY_MS = 1500;

const form = new Form();
const stage = new Stage();
const history = new History(prefix, choose, attempt);
const lightbox = new Lightbox((picture, step) => history.beside(picture, step), choose);
const queue = new Queue(prefix(), { moved: (job, preview) => stage.follow(job, preview), ended, chosen: watch });
const generate = /** @type {HTMLButtonElement} */ (find("#generate"));
/** Pictures that jobs began with stay in memory while there are at most so many. */
const INPUTS = 20;
/** @type {Map<string, Blob>} job's id -> the picture that it began with */
const inputs = new Map();

/** Return what the ids of this page's jobs begin with: those of a key, or else of a browser. */
function prefix() {
  return api.key() ? "ui-" : `ui-${browserName()}-`;
}

// -- the service ------------------------------------------------------------------------------

/** Get what the service offers; go on trying while it may come. */
async function connect() {
  const about = find("#about");
  for (;;) {
    try {
      const catalog = await load();
      const [model] = catalog.models;
      about.textContent = [modelName(model.name), model.device].filter(Boolean).join(" · ");
      form.offer(catalog);
      generate.disabled = false;
      await welcome();
      return;
    } catch (error) {
      if (!(error instanceof api.ApiError)) throw error;
      about.textContent = error.status === 503 ? "The model is loading …" : error.message;
      if (error.status === 401) {
        about.textContent = "An API key is needed.";
        if (!(await askForKey())) return;
      } else if (error.passing) {
        await new Promise((resolve) => setTimeout(resolve, RETRY_MS));
      } else return;
    }
  }
}

/** Show what an earlier visit left. */
async function welcome() {
  queue.prefix = prefix();
  await Promise.all([history.load(), queue.resume()]);
  if (queue.jobs.length) stage.live = true;
  else if (!stage.picture && history.pictures.length) choose(history.pictures[0]);
}

/**
 * Do something with the service; say what went wrong, beside the field that it is about.
 * @param {() => Promise<void>} act
 */
async function attempt(act) {
  try {
    await act();
  } catch (error) {
    if (!(error instanceof api.ApiError)) throw error;
    if (error.status !== 401) errors.show(error);
    else if (await askForKey()) await connect();
  }
}

// -- making -----------------------------------------------------------------------------------

async function submit() {
  if (generate.disabled) return;
  await attempt(async () => {
    const order = await form.read();
    if (!order) return;
    const { task, parameters, files } = order;
    const id = `${`ui-${browserName()}`}-${crypto.getRandomValues(new Uint32Array(2)).join("")}`;
    const job = await api.submit({ task, id, parameters }, files);
    const first = files.find(({ name }) => name === "img");
    if (first) inputs.set(job.id, first.data);
    if (inputs.size > INPUTS) inputs.delete([...inputs.keys()][0]);
    if (parameters.prompt) form.prompts.keep(parameters.prompt);
    if (queue.jobs.length === 0) stage.live = true;
    queue.add(job);
    if (stage.live) stage.follow(queue.jobs.find(({ id }) => id === queue.followed) ?? job, null);
  });
}

/** @param {any} job */
function ended(job) {
  const pictures = picturesOf(job);
  const watched = stage.live;
  if (pictures.length) history.add(job);
  if (watched && pictures.length) stage.show(pictures[0]);
  else if (watched) stage.rest();
  stage.live = watched && queue.jobs.length > 0;
  history.mark(stage.picture);
  if (job.state === "failed" && job.error) {
    const error = api.errorOf(job.error, job.error.status);
    if (error.place.length) errors.show(error);
  }
}

/** @param {string} id */
function watch(id) {
  stage.live = true;
  queue.follow(id);
}

async function stop() {
  const id = queue.followed;
  if (id) await attempt(() => queue.stop(id));
}

// -- finished pictures ------------------------------------------------------------------------

/** @param {Picture} picture */
function choose(picture) {
  if (stage.comparing && picture.id !== stage.picture?.id) {
    attempt(async () => stage.compare(await source(picture), title(picture)));
    return;
  }
  stage.show(picture);
  history.mark(picture);
}

/** @type {Record<string, (picture: Picture) => void|Promise<void>>} what the buttons do */
const ACTIONS = {
  recall(picture) {
    form.write(picture.parameters, /** @type {any} */ (picture.task));
    const input = inputs.get(picture.id.split("/")[0]);
    if (input && !form.slot.file) form.slot.put(input, "picture");
    stage.note("The settings are filled in, with the seed.");
  },
  img2img: (picture) => goOn(picture, "img2img"),
  inpaint: (picture) => goOn(picture, "inpaint"),
  upscale: (picture) => goOn(picture, "upscale"),
  async compare(picture) {
    if (stage.comparing) return stage.stopComparing();
    const input = inputs.get(picture.id.split("/")[0]);
    const other = history.beside(picture, 1) ?? history.beside(picture, -1);
    if (input) compareWith(input);
    else if (other) stage.compare(await source(other), title(other));
    else stage.note("There is no other picture to compare with yet.");
  },
};

/** Compare the picture with the one it began with. */
function compareWith(/** @type {Blob} */ input) {
  const address = URL.createObjectURL(input);
  stage.before.addEventListener("load", () => URL.revokeObjectURL(address), { once: true });
  stage.compare(address, "the picture it began with");
}

/**
 * Start from a picture.
 * @param {Picture} picture
 * @param {import("./form.js").Task} task
 */
async function goOn(picture, task) {
  const file = await blob(picture);
  const prompt = /** @type {HTMLTextAreaElement} */ (find("#prompt"));
  form.slot.put(file, fileName(picture));
  form.task = task;
  if (!prompt.value) prompt.value = picture.parameters.prompt ?? "";
  find("#compose").scrollIntoView({ block: "nearest" });
  (task === "upscale" ? generate : prompt).focus({ preventScroll: true });
}

/** @param {keyof typeof WRITERS} kind */
async function copy(kind) {
  const { picture } = stage;
  if (!picture || !form.catalog) return;
  const parameters = essential(picture.parameters, form.catalog);
  if (!(await copyText(WRITERS[kind](picture, parameters)))) return stage.note("This browser does not let the page copy.");
  const mask = picture.task === "inpaint" ? ", and the mask as mask.png, white where it repaints" : "";
  const files = picture.task === "txt2img" ? "" : ` Put the picture it began with beside it, as img.png${mask}.`;
  stage.note(`Copied.${files}`);
}

/** @param {File} file */
async function recall(file) {
  await attempt(async () => {
    const found = await parametersIn(file);
    if (!found) return errors.say(`${file.name} carries no settings.`);
    const changed = form.task === "inpaint" ? "inpaint" : "img2img";
    form.write(found, "strength" in found ? changed : "txt2img");
    errors.say(`The settings of ${file.name} are filled in.`);
  });
}

// -- wiring -----------------------------------------------------------------------------------

function wire() {
  form.root.addEventListener("submit", (event) => {
    event.preventDefault();
    submit();
  });
  for (const button of all("[data-action]")) {
    const act = ACTIONS[button.dataset.action ?? ""];
    if (act) button.addEventListener("click", () => stage.picture && attempt(async () => act(/** @type {Picture} */ (stage.picture))));
  }
  for (const button of all("[data-copy]")) {
    button.addEventListener("click", () => {
      button.closest("details")?.removeAttribute("open");
      copy(/** @type {keyof typeof WRITERS} */ (button.dataset.copy));
    });
  }
  stage.open.addEventListener("click", () => stage.picture && lightbox.open(stage.picture));
  find(".progress .stop").addEventListener("click", stop);
  find("#start-over").addEventListener("click", () => form.reset());
  find("#lock").addEventListener("click", lock);
  find("#theme").addEventListener("click", turn);
  find("#key-button").addEventListener("click", () => attempt(async () => void ((await askForKey()) && connect())));
  find("#recall").addEventListener("change", (event) => {
    const input = /** @type {HTMLInputElement} */ (event.target);
    if (input.files?.[0]) recall(input.files[0]);
    input.value = "";
  });
  listen(recall, (file) => (form.task === "txt2img" ? recall(file) : form.slot.put(file, file.name)));
  addEventListener("click", closeMenus);
  addEventListener("keydown", pressed);
}

/** @param {KeyboardEvent} event */
function pressed(event) {
  if (event.key === "Enter" && (event.ctrlKey || event.metaKey)) {
    event.preventDefault();
    submit();
  }
  if (event.key !== "Escape" || document.querySelector("dialog[open]") || closeMenus(event)) return;
  if (stage.comparing) stage.stopComparing();
  else stop();
}

/** Keep the seed of the picture that is shown, or take new ones again. */
function lock() {
  const field = /** @type {HTMLInputElement} */ (find("#seed"));
  if (form.locked) field.value = "";
  else field.value ||= String(stage.picture?.seed ?? "");
  form.lock(field.value !== "");
}

/** Turn from light to dark, or back. */
function turn() {
  const root = document.documentElement;
  const dark = root.dataset.theme ? root.dataset.theme === "dark" : matchMedia("(prefers-color-scheme: dark)").matches;
  root.dataset.theme = dark ? "light" : "dark";
  try {
    localStorage.setItem("sd-theme", root.dataset.theme); // read by theme.js, as it is
  } catch {
    // The theme lasts as long as the page.
  }
}

if (innerWidth > 860) form.settings.open = true;
wire();
connect();

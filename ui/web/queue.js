/** The page's jobs that have not ended: one is followed step by step, the others are looked at. */

import * as api from "./api.js";
import { copyOf, element, find } from "./page.js";
import { explain, progress } from "./words.js";

/** Milliseconds between looks at the jobs that are not followed, and before a lost stream's next. */
const LOOK_MS = 2000;
/** Previews per job, at most about. */
const PREVIEWS = 15;

/**
 * @typedef {object} Listener
 * @property {(job: any, preview: string|null) => void} moved The followed job has gone on.
 * @property {(job: any) => void} ended
 * @property {(id: string) => void} chosen The visitor wants to watch this job.
 */

export class Queue {
  /** @type {Map<string, any>} id -> document, oldest first */
  #jobs = new Map();
  /** @type {{id: string, stop: AbortController}|null} */
  #followed = null;
  /** @type {number|undefined} */
  #timer;

  /**
   * @param {string} prefix What the ids of these jobs begin with.
   * @param {Listener} listener
   */
  constructor(prefix, listener) {
    this.prefix = prefix;
    this.listener = listener;
    this.root = find("#queue");
    this.list = find("ul", this.root);
  }

  /** The jobs that have not ended, oldest first. */
  get jobs() {
    return [...this.#jobs.values()];
  }

  /** The id of the job that is followed, or "". */
  get followed() {
    return this.#followed?.id ?? "";
  }

  /** Take up the jobs that an earlier visit left. */
  async resume() {
    const found = await this.#unfinished();
    for (const job of found.reverse()) this.add(job);
  }

  /** Add a job that was just accepted. */
  add(/** @type {any} */ job) {
    this.#jobs.set(job.id, job);
    if (!this.#followed) this.follow(job.id);
    this.#show();
    this.#lookLater();
  }

  /** Stop a job. */
  async stop(/** @type {string} */ id) {
    const job = await api.json(`jobs/${id}`, { method: "DELETE" });
    if (api.FINAL.has(job.state)) this.#end(job);
  }

  /** Follow this job from now on. */
  async follow(/** @type {string} */ id) {
    this.#followed?.stop.abort();
    const stop = new AbortController();
    const mine = (this.#followed = { id, stop });
    const every = Math.max(1, Math.floor(this.#jobs.get(id).steps / PREVIEWS));
    try {
      for await (const { name, data } of api.events(id, every, stop.signal)) {
        if (api.FINAL.has(name)) return this.#end(data);
        this.#moved(id, data);
      }
    } catch (error) {
      if (stop.signal.aborted) return;
      if (error instanceof api.ApiError && error.status === 404) return this.#forget(id);
    }
    // The service stopped, or the line was cut: the job outlives both.
    await new Promise((resolve) => setTimeout(resolve, LOOK_MS));
    if (this.#followed === mine && this.#jobs.has(id)) this.follow(id);
  }

  /** @param {string} id @param {any} event */
  #moved(id, event) {
    const { preview, ...state } = event;
    const job = Object.assign(this.#jobs.get(id) ?? {}, state);
    this.#show();
    this.listener.moved(job, preview ? `data:image/jpeg;base64,${preview}` : null);
  }

  /** @param {any} job */
  #end(job) {
    if (!this.#jobs.has(job.id)) return;
    this.#forget(job.id);
    if (job.state === "failed") this.#showFailure(job);
    this.listener.ended(job);
  }

  /** @param {string} id */
  #forget(id) {
    this.#jobs.delete(id);
    if (this.#followed?.id === id) {
      this.#followed.stop.abort();
      this.#followed = null;
      const next = this.jobs.find((job) => job.state === "running") ?? this.jobs[0];
      if (next) this.follow(next.id);
    }
    this.#show();
  }

  // -- looking ------------------------------------------------------------------------------

  #lookLater() {
    this.#timer ??= setTimeout(() => this.#look(), LOOK_MS);
  }

  async #look() {
    if (this.#jobs.size > 1) await this.#update().catch(() => {}); // the next look may succeed
    this.#timer = undefined;
    if (this.#jobs.size) this.#lookLater();
  }

  async #update() {
    const found = new Map((await this.#unfinished()).map((job) => [job.id, job]));
    for (const id of [...this.#jobs.keys()]) {
      if (id === this.followed) continue;
      const job = found.get(id) ?? (await api.json(`jobs/${id}`));
      if (api.FINAL.has(job.state)) this.#end(job);
      else this.#jobs.set(id, job);
    }
    this.#show();
  }

  /** @returns {Promise<any[]>} newest first */
  async #unfinished() {
    const states = ["queued", "running"];
    const pages = await Promise.all(
      states.map((state) => api.json(`jobs?state=${state}&prefix=${this.prefix}&limit=200`)),
    );
    return pages.flatMap((page) => page.jobs);
  }

  // -- showing ------------------------------------------------------------------------------

  #show() {
    const failed = [...this.list.children].filter((row) => row.classList.contains("failed"));
    const rows = this.jobs.map((job) => this.#row(job));
    for (const row of [...this.list.children]) {
      if (!rows.includes(/** @type {HTMLElement} */ (row)) && !failed.includes(row)) row.remove();
    }
    // the only job is shown by the picture's own bar
    this.root.hidden = rows.length < 2 && failed.length === 0;
  }

  /** @param {any} job @returns {HTMLElement} */
  #row(job) {
    const id = `job-${job.id}`;
    const row = document.getElementById(id) ?? this.#newRow(job, id);
    const bar = /** @type {HTMLProgressElement} */ (find("progress", row));
    find(".text span", row).textContent = progress(job);
    bar.value = job.steps ? job.step / job.steps : 0;
    return row;
  }

  /** @param {any} job @param {string} id */
  #newRow(job, id) {
    const row = find("li", copyOf("queued-template"));
    row.id = id;
    const name = job.parameters.prompt ?? "Enlarge a picture";
    find("strong", row).textContent = name;
    find("progress", row).setAttribute("aria-label", `Progress of ${name}`);
    const stop = /** @type {HTMLButtonElement} */ (find(".stop", row));
    stop.setAttribute("aria-label", `Stop ${name}`);
    stop.addEventListener("click", () => {
      stop.disabled = true;
      this.stop(job.id).catch(() => (stop.disabled = false));
    });
    find(".text", row).addEventListener("click", () => this.listener.chosen(job.id));
    this.list.append(row);
    return row;
  }

  /** @param {any} job */
  #showFailure(job) {
    const row = element("li");
    const text = element("div");
    const gone = element("button", "Dismiss");
    row.className = "failed";
    text.className = "text";
    gone.type = "button";
    gone.className = "quiet stop";
    const error = api.errorOf(job.error, job.error?.status ?? 500);
    text.append(element("strong", job.parameters.prompt ?? "Enlarge a picture"), element("span", explain(error)));
    gone.addEventListener("click", () => {
      row.remove();
      this.#show();
    });
    row.append(text, element("span"), gone);
    this.list.append(row);
    this.#show();
  }
}

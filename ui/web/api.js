/** The service's API. The page lies one folder below it, so every address here is relative. */

/** The address of the API, with a slash at its end, whatever prefix a proxy puts before it. */
export const ROOT = new URL("../", document.baseURI).href;
export const FINAL = new Set(["succeeded", "failed", "cancelled"]);
const KEY = "sd-key";

/** An answer other than success, or none at all. */
export class ApiError extends Error {
  /**
   * @param {string} message The service's own words.
   * @param {number} status The HTTP status; 0 where the service was not reached.
   * @param {string[]} place The path to the parameter that it is about, outermost name first.
   */
  constructor(message, status = 0, place = []) {
    super(message);
    this.status = status;
    this.place = place;
  }

  /** Whether the service may answer in a moment. */
  get passing() {
    return [0, 502, 503, 504].includes(this.status);
  }
}

/** Return the visitor's API key, or "". It is kept for this tab, or for this browser if asked. */
export function key() {
  try {
    return sessionStorage.getItem(KEY) ?? localStorage.getItem(KEY) ?? "";
  } catch {
    return memory;
  }
}

let memory = "";

/**
 * Keep an API key; "" forgets it.
 * @param {string} value
 * @param {boolean} always Whether other tabs and later visits know it, too.
 */
export function setKey(value, always = false) {
  memory = value;
  try {
    for (const store of [sessionStorage, localStorage]) store.removeItem(KEY);
    if (value) (always ? localStorage : sessionStorage).setItem(KEY, value);
  } catch {
    // The key lasts as long as the page.
  }
}

/**
 * Send a request and return its answer.
 * @param {string} path Relative to the API, such as `jobs?limit=3`.
 * @param {RequestInit} [options]
 * @returns {Promise<Response>}
 * @throws {ApiError}
 */
export async function call(path, options = {}) {
  const headers = new Headers(options.headers);
  if (key()) headers.set("X-API-Key", key());
  let response;
  try {
    response = await fetch(ROOT + path, { ...options, headers });
  } catch (error) {
    if (error instanceof DOMException && error.name === "AbortError") throw error;
    throw new ApiError("The service cannot be reached.");
  }
  if (!response.ok) throw await problem(response);
  return response;
}

/**
 * Return the JSON of an answer.
 * @param {string} path
 * @param {RequestInit} [options]
 * @returns {Promise<any>}
 */
export async function json(path, options) {
  return (await call(path, options)).json();
}

/**
 * Submit a job and return its document.
 * @param {{task: string, id: string, parameters: object}} order
 * @param {{name: string, data: Blob, fileName: string}[]} files
 */
export async function submit(order, files) {
  if (files.length === 0) {
    const headers = { "Content-Type": "application/json" };
    return json("jobs", { method: "POST", headers, body: JSON.stringify(order) });
  }
  const form = new FormData();
  form.append("data", JSON.stringify(order));
  for (const file of files) form.append(file.name, file.data, file.fileName);
  return json("jobs", { method: "POST", body: form });
}

/**
 * Yield the events of a job: `progress`, and one last named by the final state.
 *
 * EventSource cannot send the key, so the stream is read here (HTML standard, section 9.2).
 * @param {string} id
 * @param {number} previewEvery Steps between previews.
 * @param {AbortSignal} signal
 * @returns {AsyncGenerator<{name: string, data: any}>}
 */
export async function* events(id, previewEvery, signal) {
  const response = await call(`jobs/${id}/events?preview_every=${previewEvery}`, { signal });
  if (!response.body) return;
  const reader = response.body.pipeThrough(new TextDecoderStream()).getReader();
  let unread = "";
  for (;;) {
    const { done, value } = await reader.read();
    if (done) return;
    const blocks = (unread + value).split("\n\n");
    unread = blocks.pop() ?? "";
    for (const block of blocks) {
      const lines = block.split("\n");
      const name = lines.find((line) => line.startsWith("event: "))?.slice(7);
      const data = lines.find((line) => line.startsWith("data: "))?.slice(6);
      if (name && data) yield { name, data: JSON.parse(data) };
    }
  }
}

/** @param {Response} response */
async function problem(response) {
  let body = {};
  try {
    body = await response.json();
  } catch {
    // What stands between answers in its own way.
  }
  return errorOf(body, response.status);
}

/**
 * Return the service's JSON error, of an answer or of a failed job, as an exception.
 * @param {any} body
 * @param {number} status
 */
export function errorOf(body, status) {
  const detail = Array.isArray(body?.detail) ? body.detail : [];
  /** @type {string[]} */
  const place = (detail[0]?.loc ?? []).map(String);
  const named = place.filter((name) => name !== "data" && name !== "parameters");
  const text = typeof body?.detail === "string" ? body.detail : detail[0]?.msg ?? body?.error;
  return new ApiError(text ?? `The service answered ${status}.`, status, named);
}

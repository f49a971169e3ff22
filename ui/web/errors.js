/** Errors beside the fields that they are about; what is about none stands below the button. */

import { all, find } from "./page.js";
import { explain } from "./words.js";

/** Part of a multipart body -> the field that it comes from. */
const SAME = { control: "controlnets" };

/** Remove all errors and notes. */
export function clear() {
  for (const error of all("#form .error")) error.hidden = true;
  for (const control of all("#form [aria-invalid]")) control.removeAttribute("aria-invalid");
  find("#message").hidden = true;
}

/**
 * Show what the service said.
 * @param {import("./api.js").ApiError} error
 */
export function show(error) {
  for (const name of [...error.place].reverse()) {
    const place = SAME[/** @type {keyof typeof SAME} */ (name)] ?? name;
    if (/^\w+$/.test(place) && beside(place, explain(error))) return;
  }
  const names = error.place.filter((name) => !/^\d+$/.test(name)).join(".");
  say(names ? `${names}: ${explain(error)}` : explain(error), "error");
}

/**
 * Show an error beside a field. Return whether there is such a field to be seen.
 * @param {string} name
 * @param {string} text
 */
export function beside(name, text) {
  const field = document.querySelector(`#form [data-field="${name}"]`);
  if (name === "width" || name === "height") find("#sizes").hidden = false;
  if (!(field instanceof HTMLElement) || field.closest("[hidden]")) return false;
  for (let around = field.closest("details"); around; around = around.parentElement?.closest("details") ?? null) {
    around.open = true;
  }
  const error = [...field.children].find((child) => child.classList.contains("error"));
  if (!(error instanceof HTMLElement)) return false;
  error.id ||= `error-${name}`;
  error.textContent = text;
  error.hidden = false;
  error.setAttribute("role", "alert");
  const control = /** @type {HTMLElement|null} */ (
    field.querySelector("textarea, input:not([type=range], [type=file]), select, input[type=file]")
  );
  control?.setAttribute("aria-invalid", "true");
  control?.setAttribute("aria-describedby", error.id);
  field.scrollIntoView({ block: "nearest" });
  control?.focus({ preventScroll: true });
  return true;
}

/**
 * Say something that is about no field.
 * @param {string} text
 * @param {"error"|"note"} kind
 */
export function say(text, kind = "note") {
  const message = find("#message");
  message.textContent = text;
  message.classList.toggle("note", kind === "note");
  message.hidden = false;
}

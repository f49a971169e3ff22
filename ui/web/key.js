/** The dialog that asks for an API key, before anything is sent. */

import * as api from "./api.js";
import { find } from "./page.js";
import { forget } from "./pictures.js";

/**
 * Ask for a key until the service knows it. Return whether there is one now.
 * @returns {Promise<boolean>}
 */
export function askForKey() {
  const dialog = /** @type {HTMLDialogElement} */ (find("#key-dialog"));
  const field = /** @type {HTMLInputElement} */ (find("#key"));
  const error = find(".error", dialog);
  find("#key-button").hidden = false;
  if (dialog.open) return Promise.resolve(false);
  return new Promise((resolve) => {
    let good = false;
    const form = /** @type {HTMLFormElement} */ (find("form", dialog));
    const submitted = async (/** @type {Event} */ event) => {
      event.preventDefault();
      const problem = await check(field.value.trim());
      error.textContent = problem;
      error.hidden = problem === "";
      field.toggleAttribute("aria-invalid", problem !== "");
      good = problem === "";
      if (good) dialog.close();
      else field.select();
    };
    const closed = () => {
      form.removeEventListener("submit", submitted);
      field.value = "";
      error.hidden = true;
      resolve(good);
    };
    form.addEventListener("submit", submitted);
    dialog.addEventListener("close", closed, { once: true });
    dialog.showModal();
    field.focus();
  });
}

/** Keep a key if the service knows it; return what is wrong, or "". */
async function check(/** @type {string} */ value) {
  const before = api.key();
  api.setKey(value, /** @type {HTMLInputElement} */ (find("#keep-key")).checked);
  try {
    await api.json("loras");
    forget();
    return "";
  } catch (error) {
    api.setKey(before);
    const unknown = error instanceof api.ApiError && error.status === 401;
    return unknown ? "This key is not known here." : String(/** @type {Error} */ (error).message);
  }
}

/** Copying text, also where a service is reached by plain http. */

import { element } from "./page.js";

/**
 * Copy a text. Return whether the browser let the page do so.
 *
 * Browsers have `navigator.clipboard` for https and localhost alone; the older way works elsewhere.
 * @param {string} text
 * @returns {Promise<boolean>}
 */
export async function copyText(text) {
  try {
    await navigator.clipboard.writeText(text);
    return true;
  } catch {
    return copySelected(text);
  }
}

/** @param {string} text */
function copySelected(text) {
  const focused = document.activeElement;
  const field = element("textarea");
  field.value = text;
  field.className = "unseen";
  document.body.append(field);
  field.select();
  const done = document.execCommand("copy");
  field.remove();
  if (focused instanceof HTMLElement) focused.focus();
  return done;
}

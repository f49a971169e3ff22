/** Settings from a picture's file, which the service reads: its own, or the WebUI's. */

import * as api from "./api.js";

/**
 * Return the parameters in a file.
 * @param {Blob} file
 * @returns {Promise<Record<string, any>|null>} null where there are none
 * @throws {api.ApiError} The file is no picture, or too large.
 */
export async function parametersIn(file) {
  const body = JSON.stringify({ image: await base64(file) });
  const headers = { "Content-Type": "application/json" };
  const found = await api.json("sdapi/v1/png-info", { method: "POST", headers, body });
  return found.native;
}

/** @param {Blob} file @returns {Promise<string>} */
function base64(file) {
  return new Promise((resolve, reject) => {
    const reader = new FileReader();
    reader.addEventListener("load", () => resolve(String(reader.result).split(",", 2)[1] ?? ""));
    reader.addEventListener("error", () => reject(new api.ApiError("This file cannot be read.")));
    reader.readAsDataURL(file);
  });
}

/**
 * Call back with pictures that are dropped anywhere on the page, or pasted.
 * @param {(file: File) => void} dropped
 * @param {(file: File) => void} pasted
 */
export function listen(dropped, pasted) {
  const shade = /** @type {HTMLElement} */ (document.querySelector("#drop"));
  let inside = 0; // elements entered less those left
  const carries = (/** @type {DragEvent} */ event) => event.dataTransfer?.types.includes("Files");
  addEventListener("dragenter", (event) => {
    if (carries(event)) shade.hidden = (inside += 1) < 1;
  });
  addEventListener("dragleave", (event) => {
    if (carries(event)) shade.hidden = (inside -= 1) < 1;
  });
  addEventListener("dragover", (event) => carries(event) && event.preventDefault());
  // also where the drop went to a slot, which keeps the event for itself
  addEventListener("drop", () => ((inside = 0), (shade.hidden = true)), { capture: true });
  addEventListener("drop", (event) => {
    const file = event.dataTransfer?.files[0];
    event.preventDefault();
    if (file) dropped(file);
  });
  addEventListener("paste", (event) => {
    const file = [...(event.clipboardData?.files ?? [])].find((one) => one.type.startsWith("image/"));
    if (file) pasted(file);
  });
}

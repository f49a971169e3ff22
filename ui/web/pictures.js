/** Finished pictures: what they are, and where their files come from. */

import * as api from "./api.js";

/**
 * One image of a finished job.
 * @typedef {object} Picture
 * @property {string} id The job's id and the image's number.
 * @property {string} path Its file's address, relative to the API.
 * @property {string} task
 * @property {Record<string, any>} parameters Those that make this image again, alone.
 * @property {number|null} seed It is null where an image was only enlarged.
 * @property {number} width
 * @property {number} height
 * @property {string} type Its media type.
 * @property {boolean} filtered Whether the safety checker objected.
 * @property {string} hint What the service says about it; mostly nothing.
 */

/**
 * Return the pictures of a job's document; none where it has not succeeded.
 * @param {any} job
 * @returns {Picture[]}
 */
export function picturesOf(job) {
  return job.images.map((/** @type {any} */ image, /** @type {number} */ index) => ({
    id: `${job.id}/${index}`,
    path: `jobs/${job.id}/images/${index}`,
    task: job.task,
    parameters: ownParameters(job, image),
    seed: image.seed,
    width: image.width,
    height: image.height,
    type: image.content_type,
    filtered: image.finish_reason !== "success",
    hint: image.hint ?? "",
  }));
}

/** @param {any} job @param {any} image */
function ownParameters(job, image) {
  if (job.task === "upscale") return job.parameters;
  return { ...job.parameters, seed: image.seed, num_images_per_prompt: 1 };
}

/** Files that were loaded with a key stay in memory while there are at most so many. */
const KEPT = 60;
/** @type {Map<string, Promise<string>>} their addresses by path, the one that was used last at the end */
const loaded = new Map();

/**
 * Return an address for `<img>` and links. An element cannot send a key: with one, the file is
 * loaded here.
 * @param {Picture} picture
 * @returns {Promise<string>}
 */
export async function source({ path }) {
  if (!api.key()) return api.ROOT + path;
  const address = loaded.get(path) ?? api.call(path).then(async (answer) => URL.createObjectURL(await answer.blob()));
  loaded.delete(path);
  loaded.set(path, address);
  address.then(free, () => loaded.delete(path));
  return address;
}

/** Free the files that were used longest ago. A link may still offer one: that one stays. */
async function free() {
  for (const [path, promised] of [...loaded].slice(0, -KEPT)) {
    const address = await promised.catch(() => "");
    if (document.querySelector(`a[href="${address}"]`)) continue;
    loaded.delete(path);
    URL.revokeObjectURL(address);
  }
}

/** Free all files, because another key may not see them. */
export function forget() {
  for (const address of loaded.values()) address.then(URL.revokeObjectURL, () => {});
  loaded.clear();
}

/**
 * Return a picture's file.
 * @param {Picture} picture
 * @returns {Promise<Blob>}
 */
export async function blob(picture) {
  return (await api.call(picture.path)).blob();
}

/**
 * Show a picture in an element. The element keeps what it has where the file cannot be loaded.
 * @param {HTMLImageElement} element
 * @param {Picture} picture
 */
export async function show(element, picture) {
  element.dataset.picture = picture.id;
  const address = await source(picture).catch(() => "");
  if (!address || element.dataset.picture !== picture.id) return;
  if (address.startsWith("blob:")) element.loading = "eager"; // it may be freed later
  element.src = address;
}

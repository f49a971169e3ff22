/** Words: errors, progress and file names in plain English. */

/** What a validator says -> what the page says. */
const PLAIN = [
  [/^Input should be less than or equal to (\S+)$/, "This can be $1 at most."],
  [/^Input should be greater than or equal to (\S+)$/, "This has to be at least $1."],
  [/^Input should be less than (\S+)$/, "This has to be less than $1."],
  [/^Input should be greater than (\S+)$/, "This has to be more than $1."],
  [/^Input should be a valid integer.*$/, "This has to be a whole number."],
  [/^Input should be a valid number.*$/, "This has to be a number."],
  [/^String should have at least 1 character$/, "Please write something here."],
  [/^String should have at most (\d+) characters?$/, "This is longer than $1 characters."],
  [/^Tuple should have at most (\d+) items? .*$/, "There can be $1 of these at most."],
  [/^Extra inputs are not permitted$/, "There is no such parameter."],
];

/**
 * Return an error in plain words.
 * @param {import("./api.js").ApiError} error
 * @returns {string}
 */
export function explain(error) {
  if (error.status === 429) return `The service is busy. ${sentence(error.message)}`;
  for (const [pattern, words] of PLAIN) {
    if (/** @type {RegExp} */ (pattern).test(error.message)) {
      return error.message.replace(pattern, /** @type {string} */ (words));
    }
  }
  return sentence(error.message);
}

/** @param {string} text */
function sentence(text) {
  const whole = text.charAt(0).toUpperCase() + text.slice(1);
  return /[.!?)]$/.test(whole) ? whole : `${whole}.`;
}

/**
 * Return where a job stands, in one line.
 * @param {{state: string, step: number, steps: number, position: number|null, eta_s: number|null}} job
 */
export function progress(job) {
  const parts = [where(job)];
  if (job.eta_s !== null && job.eta_s > 0) parts.push(`about ${duration(job.eta_s)} left`);
  return parts.join(" · ");
}

/** @param {{state: string, step: number, steps: number, position: number|null}} job */
function where(job) {
  if (job.state === "queued") {
    return job.position ? `Waiting, ${job.position} before this` : "Next in line";
  }
  if (job.step >= job.steps) return "Finishing";
  return `Step ${job.step} of ${job.steps}`;
}

/** @param {number} seconds */
function duration(seconds) {
  if (seconds < 90) return `${Math.max(1, Math.round(seconds))} s`;
  return `${Math.round(seconds / 60)} min`;
}

/**
 * Return a model's name, for people: the one in the repository is small, and nobody should judge by it.
 * @param {string} name
 */
export function modelName(name) {
  return name === "embedded" ? "demo model" : name;
}

/**
 * Return one line about a picture.
 * @param {import("./pictures.js").Picture} picture
 */
export function summary(picture) {
  const { scheduler, num_inference_steps: steps, guidance_scale: guidance } = picture.parameters;
  const parts = [`${picture.width} × ${picture.height}`];
  if (picture.seed !== null) parts.push(`seed ${picture.seed}`);
  if (scheduler) parts.push(scheduler);
  if (steps) parts.push(`${steps} steps`);
  if (guidance !== undefined) parts.push(`guidance ${guidance}`);
  if (picture.parameters.upscaler) parts.push(`enlarged with ${picture.parameters.upscaler}`);
  return parts.join(" · ");
}

/**
 * Return what a picture shows, for people who cannot see it, and for titles.
 * @param {import("./pictures.js").Picture} picture
 */
export function title(picture) {
  return picture.parameters.prompt ?? "Enlarged picture";
}

/**
 * Return a file name that says what a picture is, such as `a-red-apple-seed-42.png`.
 * @param {import("./pictures.js").Picture} picture
 */
export function fileName(picture) {
  const words = title(picture).toLowerCase().match(/[\p{L}\p{N}]+/gu) ?? ["picture"];
  let name = "";
  for (const word of words) {
    if (name.length + word.length > 60) break;
    name += (name ? "-" : "") + word;
  }
  const own = picture.seed === null ? `${picture.width}x${picture.height}` : `seed-${picture.seed}`;
  const extension = { "image/jpeg": "jpg", "image/webp": "webp" }[picture.type] ?? "png";
  return `${name || "picture"}-${own}.${extension}`;
}

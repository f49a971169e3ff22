/** What the service offers: models, samplers, further names, and the limits of parameters. */

import * as api from "./api.js";

/**
 * @typedef {object} Catalog
 * @property {any[]} models The default first.
 * @property {any[]} samplers
 * @property {any[]} loras
 * @property {any[]} embeddings
 * @property {any[]} controlnets
 * @property {any[]} upscalers
 * @property {Record<string, any>} limits Parameter -> its JSON schema.
 */

const LISTS = ["models", "samplers", "loras", "embeddings", "controlnets", "upscalers"];
/** The tasks' schemas in the OpenAPI document; between them they have every parameter. */
const SCHEMAS = ["Upscale", "TextToImage", "ImageToImage"];

/**
 * Return everything that the service offers.
 * @returns {Promise<Catalog>}
 * @throws {api.ApiError}
 */
export async function load() {
  const [document, ...lists] = await Promise.all(
    ["docs.json", ...LISTS].map((path) => api.json(path)),
  );
  const named = Object.fromEntries(LISTS.map((name, i) => [name, lists[i]]));
  return /** @type {Catalog} */ ({ ...named, limits: limitsIn(document) });
}

/**
 * Return the entry of a model; the first one where there is none of this name.
 * @param {Catalog} catalog
 * @param {string} name
 */
export function modelOf(catalog, name) {
  return catalog.models.find((model) => model.name === name) ?? catalog.models[0];
}

/** @param {any} document */
function limitsIn(document) {
  /** @type {Record<string, any>} */
  const limits = {};
  for (const name of SCHEMAS) {
    for (const [field, schema] of Object.entries(document.components.schemas[name].properties)) {
      limits[field] = flat(schema);
    }
  }
  return limits;
}

/**
 * Return a property's schema without `anyOf: [..., null]`.
 * @param {any} schema
 */
function flat(schema) {
  const choice = (schema.anyOf ?? []).find((/** @type {any} */ one) => one.type !== "null");
  return { ...schema, ...choice };
}

/** Parameters: those that matter of a picture, which is what somebody has to send to get it again. */

/** What a picture does not depend on, or what the page decides itself. */
const NOT_OF_PICTURES = new Set(["output_format", "priority", "deadline_s", "task"]);

/**
 * Return a picture's parameters without what is at its default.
 * @param {Record<string, any>} parameters With every default, as jobs report them.
 * @param {import("./catalog.js").Catalog} catalog
 * @returns {Record<string, any>}
 */
export function essential(parameters, catalog) {
  const model = catalog.models.find((entry) => entry.name === parameters.model);
  const usual = {
    guidance_interval: [0, 1],
    guidance_rescale: model?.defaults?.guidance_rescale,
    model: catalog.models.length === 1 ? parameters.model : undefined,
  };
  return Object.fromEntries(
    Object.entries(parameters).filter(([name, value]) => {
      const standard = usual[/** @type {keyof typeof usual} */ (name)] ?? catalog.limits[name]?.default;
      return value !== null && !NOT_OF_PICTURES.has(name) && !same(value, standard);
    }),
  );
}

/** @param {any} left @param {any} right */
function same(left, right) {
  return JSON.stringify(left) === JSON.stringify(right);
}

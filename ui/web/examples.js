/** Prompts to begin with: by the model's name, and for every model that is not listed. */

/** @type {Record<string, string[]>} */
const EXAMPLES = {
  embedded: [
    "View of a cyberpunk city",
    "a rocket",
    "a castle",
    "a house by the sea at sunset",
    "a penguin",
    "a birthday cake",
  ],
};
const OTHERS = [
  "View of a cyberpunk city",
  "a red fox in fresh snow, morning light",
  "a lighthouse in a storm, oil painting",
  "portrait of an old sailor, soft window light",
  "a cosy reading corner with plants",
];

/** @param {string} model */
export function examples(model) {
  return EXAMPLES[model] ?? OTHERS;
}

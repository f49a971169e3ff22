/** A picture as a command or a program that makes it again. */

import * as api from "./api.js";
import { fileName } from "./words.js";

/** The files that a task takes, and the names that a snippet gives them. */
const FILES = { img2img: ["img"], inpaint: ["img", "mask"], upscale: ["img"], txt2img: [] };
/** In the shell and in Python, the key comes from this variable. */
const KEY = "SD_API_KEY";

/**
 * @typedef {import("./pictures.js").Picture} Picture
 * @typedef {(picture: Picture, parameters: Record<string, any>) => string} Writer
 */

/** @type {Record<"curl"|"python"|"job", Writer>} */
export const WRITERS = { curl, python, job };

/** @type {Writer} */
function curl(picture, parameters) {
  const body = JSON.stringify({ ...parameters, output_format: "png" });
  const lines = [`curl --fail-with-body -X POST ${quoted(api.ROOT + picture.task)}`];
  lines.push(...keyLine(), ...bodyLines(picture, parameters, body));
  lines.push(`--output ${quoted(fileName(picture))}`);
  return lines.join(" \\\n  ");
}

/** @type {Writer} */
function job(picture, parameters) {
  const order = { task: picture.task, parameters: { ...parameters, output_format: "png" } };
  const lines = [`curl --fail-with-body -X POST ${quoted(`${api.ROOT}jobs`)}`];
  lines.push(...keyLine(), ...bodyLines(picture, parameters, JSON.stringify(order)));
  return lines.join(" \\\n  ");
}

/** @type {Writer} */
function python(picture, parameters) {
  const files = filesOf(picture, parameters);
  const body = literal({ ...parameters, output_format: "png" });
  const sent = files.length ? 'data={"data": json.dumps(parameters)}, files=files' : "json=parameters";
  return [
    ...(files.length ? ["import json"] : []),
    ...(api.key() ? ["import os"] : []),
    ...(files.length || api.key() ? [""] : []),
    "import requests",
    "",
    `parameters = ${body}`,
    ...(files.length ? [`files = [${files.map(opened).join(", ")}]`] : []),
    "answer = requests.post(",
    `    ${literal(api.ROOT + picture.task)},`,
    `    ${sent},`,
    ...(api.key() ? [`    headers={"X-API-Key": os.environ["${KEY}"]},`] : []),
    "    timeout=600,",
    ")",
    "answer.raise_for_status()",
    `with open(${literal(fileName(picture))}, "wb") as file:`,
    "    file.write(answer.content)",
    "",
  ].join("\n");
}

/** @param {Picture} picture @param {Record<string, any>} parameters @param {string} body */
function bodyLines(picture, parameters, body) {
  const files = filesOf(picture, parameters);
  if (!files.length) return ["-H 'Content-Type: application/json'", `-d ${quoted(body)}`];
  // --form-string takes the text as it is, where -F reads a semicolon in it
  const parts = files.map(([name, file]) => `-F ${name}=@${file}`);
  return [...parts, `--form-string ${quoted(`data=${body}`)}`];
}

/** @param {Picture} picture @param {Record<string, any>} parameters @returns {[string, string][]} */
function filesOf(picture, parameters) {
  const own = FILES[/** @type {keyof typeof FILES} */ (picture.task)] ?? [];
  const controls = (parameters.controlnets ?? []).map((/** @type {any} */ _, /** @type {number} */ i) => [
    "control",
    `control-${i + 1}.png`,
  ]);
  return [...own.map((name) => /** @type {[string, string]} */ ([name, `${name}.png`])), ...controls];
}

/** @param {[string, string]} file */
function opened([name, file]) {
  return `("${name}", open("${file}", "rb"))`;
}

function keyLine() {
  return api.key() ? [`-H "X-API-Key: $${KEY}"`] : [];
}

/**
 * Return a text as one word of a POSIX shell.
 * @param {string} text
 */
export function quoted(text) {
  return /^[\w./:@%+-]+$/.test(text) ? text : `'${text.replaceAll("'", String.raw`'\''`)}'`;
}

/**
 * Return a JSON value as Python writes it.
 * @param {any} value
 * @returns {string}
 */
export function literal(value) {
  if (value === null || value === undefined) return "None";
  if (typeof value === "boolean") return value ? "True" : "False";
  if (Array.isArray(value)) return `[${value.map(literal).join(", ")}]`;
  if (typeof value === "object") {
    const items = Object.entries(value).map(([name, inner]) => `${literal(name)}: ${literal(inner)}`);
    return `{${items.join(", ")}}`;
  }
  return JSON.stringify(value);
}

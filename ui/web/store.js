/** What this browser remembers of the page: small JSON values, by name. */

const PREFIX = "sd-";

/**
 * Return a remembered value.
 * @template T
 * @param {string} name
 * @param {T} fallback It is returned where nothing, or nothing readable, is remembered.
 * @returns {T}
 */
export function remembered(name, fallback) {
  try {
    const text = localStorage.getItem(PREFIX + name);
    return text === null ? fallback : JSON.parse(text);
  } catch {
    return fallback;
  }
}

/**
 * Remember a value. A browser that keeps nothing forgets it with the page.
 * @param {string} name
 * @param {unknown} value
 */
export function remember(name, value) {
  try {
    localStorage.setItem(PREFIX + name, JSON.stringify(value));
  } catch {
    // Private windows may refuse, and a full store does.
  }
}

/**
 * Return this browser's own name, which begins the ids of its jobs.
 * @returns {string} 16 hexadecimal digits
 */
export function browserName() {
  let name = remembered("browser", "");
  if (!/^[0-9a-f]{16}$/.test(name)) {
    const bytes = crypto.getRandomValues(new Uint8Array(8));
    name = Array.from(bytes, (byte) => byte.toString(16).padStart(2, "0")).join("");
    remember("browser", name);
  }
  return name;
}

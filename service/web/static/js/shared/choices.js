// What a reader chose, kept in localStorage, or for this page alone where that is forbidden.

const CHOICES = {
  units: /** @type {const} */ (["bits", "bytes"]),
  theme: /** @type {const} */ (["system", "light", "dark"]),
};

/**
 * @typedef {keyof typeof CHOICES} Name
 * @typedef {(typeof CHOICES)["units"][number]} Units
 */

/** @type {Map<string, string>} */
const kept = new Map();
/** @type {Set<(name: Name) => void>} */
const listeners = new Set();

/**
 * The value of a choice; its first one where none was made.
 * @template {Name} Of
 * @param {Of} name
 * @returns {(typeof CHOICES)[Of][number]}
 */
export function choice(name) {
  let value = kept.get(name) ?? null;
  if (value === null) {
    try {
      value = localStorage.getItem(`linkbeat.${name}`);
    } catch {
      // Storage is forbidden here: the first one it is.
    }
  }
  /** @type {readonly (typeof CHOICES)[Of][number][]} */
  const values = CHOICES[name];
  return values.find((one) => one === value) ?? /** @type {(typeof CHOICES)[Of][number]} */ (values[0]);
}

/**
 * Keeps the choice and tells all who listen, in every open page.
 * @param {Name} name
 * @param {string} value
 */
export function choose(name, value) {
  kept.set(name, value);
  try {
    localStorage.setItem(`linkbeat.${name}`, value);
  } catch {
    // It holds until the page is left.
  }
  tell(name);
}

/**
 * The value after the one that is chosen.
 * @param {Name} name
 */
export function following(name) {
  /** @type {readonly string[]} */
  const values = CHOICES[name];
  return values[(values.indexOf(choice(name)) + 1) % values.length] ?? "";
}

/**
 * Calls `listener(name)` after each change of a choice, here or in another tab.
 * @param {(name: Name) => void} listener
 */
export function onChoice(listener) {
  listeners.add(listener);
}

/** @param {Name} name */
function tell(name) {
  for (const listener of listeners) listener(name);
}

addEventListener("storage", (event) => {
  const name = event.key?.replace(/^linkbeat\./, "");
  if (name !== "units" && name !== "theme") return;
  kept.delete(name);
  tell(name);
});

// What a reader chose, kept in localStorage, or for this page alone where that is forbidden.

const CHOICES = { units: ["bits", "bytes"], theme: ["system", "light", "dark"] };
const kept = new Map();
const listeners = new Set();

/** The value of a choice; its first one where none was made. */
export function choice(name) {
  let value = kept.get(name);
  if (value === undefined) {
    try {
      value = localStorage.getItem(`linkbeat.${name}`);
    } catch {
      value = null;
    }
  }
  return CHOICES[name].includes(value) ? value : CHOICES[name][0];
}

/** Keeps the choice and tells all who listen, in every open page. */
export function choose(name, value) {
  kept.set(name, value);
  try {
    localStorage.setItem(`linkbeat.${name}`, value);
  } catch {
    // It holds until the page is left.
  }
  tell(name);
}

/** The value after the one that is chosen. */
export function following(name) {
  const values = CHOICES[name];
  return values[(values.indexOf(choice(name)) + 1) % values.length];
}

/** Calls `listener(name)` after each change of a choice, here or in another tab. */
export function onChoice(listener) {
  listeners.add(listener);
}

function tell(name) {
  for (const listener of listeners) listener(name);
}

addEventListener("storage", (event) => {
  const name = event.key?.replace(/^linkbeat\./, "");
  if (name in CHOICES) {
    kept.delete(name);
    tell(name);
  }
});

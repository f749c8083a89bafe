// What was received and what was sent, beside or above each other: each with its sign and, for who cannot see it, its word.

import { make, setText } from "./dom.js";

/** Two elements, received and sent. */
export function pair(rx = "", tx = "") {
  return [one("rx", "received", "↓", rx), one("tx", "sent", "↑", tx)];
}

/**
 * Writes other texts into what `pair` made and `element` holds.
 * @param {Element} element
 * @param {string} rx
 * @param {string} tx
 */
export function setPair(element, rx, tx) {
  const [received, sent] = element.querySelectorAll(".value");
  if (received) setText(received, rx);
  if (sent) setText(sent, tx);
}

/**
 * @param {"rx" | "tx"} kind
 * @param {string} word
 * @param {string} sign
 * @param {string} text
 */
function one(kind, word, sign, text) {
  return make(
    "span", { class: `of-pair ${kind}-text` },
    make("span", { "aria-hidden": "true" }, `${sign} `), make("span", { class: "unseen" }, `${word} `),
    make("span", { class: "value" }, text),
  );
}

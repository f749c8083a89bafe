// Fields of forms: what each reads and shows is a value of the API.

import { make } from "./dom.js";

/**
 * @typedef {object} Field
 * @property {HTMLElement} element its label and inputs
 * @property {() => unknown} read undefined: it is left out
 */

const SECONDS = /** @type {const} */ ([["s", 1], ["min", 60], ["h", 3600], ["d", 86_400]]);
const BITS = /** @type {const} */ ([["kbit/s", 1e3], ["Mbit/s", 1e6], ["Gbit/s", 1e9]]);
const OCTETS = /** @type {const} */ ([["MB", 1e6], ["GB", 1e9], ["TB", 1e12]]);

/**
 * @param {string} label
 * @param {{ value?: string | null, required?: boolean, type?: string, hint?: string, pattern?: string, maxlength?: number, step?: string, list?: string }} [options]
 * @returns {Field & { input: HTMLInputElement }}
 */
export function text(label, { value, hint, ...attributes } = {}) {
  const input = make("input", { type: "text", autocomplete: "off", spellcheck: "false", ...attributes });
  input.value = value ?? "";
  return { element: labelled(label, [input], hint), input, read: () => input.value.trim() || undefined };
}

/**
 * A moment, in the time zone of the browser. Reads as the API takes it, in UTC.
 * @param {string} label
 * @param {{ required?: boolean, hint?: string }} [options]
 */
export function dateTime(label, options) {
  const field = text(label, { type: "datetime-local", step: "0.001", ...options });
  return {
    ...field,
    read: () => (field.input.value ? new Date(field.input.value).toISOString() : undefined),
    /** @param {string | null} moment */
    show: (moment) => {
      const at = moment === null ? null : new Date(moment);
      field.input.value = at ? new Date(at.getTime() - at.getTimezoneOffset() * 60_000).toISOString().slice(0, -1).replace(/\.000$/, "") : "";
    },
  };
}

/**
 * Several values with commas between them.
 * @param {string} label
 * @param {{ value?: readonly (string | number)[] | null, hint?: string, required?: boolean }} [options]
 * @returns {Field & { input: HTMLInputElement }}
 */
export function list(label, { value, ...options } = {}) {
  const field = text(label, { value: (value ?? []).join(", "), ...options });
  return {
    element: field.element, input: field.input,
    read: () => {
      const found = field.input.value.split(",").map((one) => one.trim()).filter(Boolean);
      return found.length ? found : undefined;
    },
  };
}

/**
 * @param {string} label
 * @param {{ value?: number | null, min?: number, max?: number, step?: number | "any", required?: boolean, hint?: string, after?: string }} options
 * @returns {Field & { input: HTMLInputElement }}
 */
export function number(label, { value, hint, after, step = "any", ...attributes } = {}) {
  const input = make("input", { type: "number", inputmode: "decimal", step, ...attributes });
  if (value != null) input.value = String(value);
  return {
    element: labelled(label, [input, after ? make("span", { class: "muted" }, after) : null], hint), input,
    read: () => (input.value === "" ? undefined : Number(input.value)),
  };
}

/**
 * A span of time.
 * @param {string} label
 * @param {{ value?: number | null, required?: boolean, hint?: string }} options
 */
export function seconds(label, options) {
  return scaled(label, SECONDS, 1, options);
}

/**
 * Bits per second.
 * @param {string} label
 * @param {{ value?: number | null, required?: boolean, hint?: string }} options
 */
export function bitsPerSecond(label, options) {
  return scaled(label, BITS, 1, options);
}

/**
 * Octets.
 * @param {string} label
 * @param {{ value?: number | null, required?: boolean, hint?: string }} options
 */
export function octets(label, options) {
  return scaled(label, OCTETS, 1, options);
}

/**
 * @param {string} label
 * @param {Record<string, string>} values and their words
 * @param {string} value
 * @returns {Field & { input: HTMLSelectElement }}
 */
export function select(label, values, value) {
  const input = make("select", {}, ...Object.entries(values).map(([one, words]) => make("option", { value: one }, words)));
  input.value = value;
  return { element: labelled(label, [input]), input, read: () => input.value };
}

/**
 * @param {string} label
 * @param {boolean} value
 * @returns {Field & { input: HTMLInputElement }}
 */
export function check(label, value) {
  const input = make("input", { type: "checkbox" });
  input.checked = value;
  return { element: make("label", { class: "check" }, input, ` ${label}`), input, read: () => input.checked };
}

/**
 * @param {string} label
 * @param {readonly (readonly [string, number])[]} units
 * @param {number} least unit to show a value in
 * @param {{ value?: number | null, required?: boolean, hint?: string }} options
 * @returns {Field}
 */
function scaled(label, units, least, { value, hint, required }) {
  const fitting = [...units].reverse().find(([, size]) => value && value >= size && value % size === 0) ?? units[least];
  const input = make("input", { type: "number", inputmode: "decimal", min: "0", step: "any", required });
  const unit = make("select", { "aria-label": `Unit of: ${label}` }, ...units.map(([name]) => make("option", {}, name)));
  if (fitting) unit.value = fitting[0];
  if (value != null && fitting) input.value = String(value / fitting[1]);
  return {
    element: labelled(label, [input, unit], hint),
    read: () => {
      const size = units.find(([name]) => name === unit.value)?.[1] ?? 1;
      return input.value === "" ? undefined : Number(input.value) * size;
    },
  };
}

let labels = 0;

/**
 * @param {string} label
 * @param {[HTMLElement, ...(Node | null)[]]} inputs the first one is labelled
 * @param {string} [hint]
 */
function labelled(label, [first, ...others], hint) {
  labels += 1;
  first.id = `field-${labels}`;
  return make(
    "div", { class: "field" },
    make("label", { for: first.id }, label), make("div", { class: "inputs" }, first, ...others),
    hint ? make("span", { class: "muted hint" }, hint) : null,
  );
}

/**
 * What fields say, by name; without those that are empty.
 * @param {Record<string, Field>} fields
 */
export function readAll(fields) {
  return Object.fromEntries(Object.entries(fields).map(([name, field]) => [name, field.read()]).filter(([, value]) => value !== undefined));
}

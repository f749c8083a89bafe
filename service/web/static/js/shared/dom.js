// Elements from data. Text is always a text node: what a machine calls itself is shown and never parsed.

const SVG = "http://www.w3.org/2000/svg";

/**
 * @typedef {Record<string, unknown>} Attributes null and false are left out; functions of `on…` are listeners
 * @typedef {(Node | string | null | undefined)[]} Children null is left out
 */

/**
 * An element: `make("a", { href, class: "x", onclick }, "text", child, null)`.
 * @template {keyof HTMLElementTagNameMap} Tag
 * @param {Tag} tag
 * @param {Attributes} attributes
 * @param {Children} children
 */
export function make(tag, attributes = {}, ...children) {
  return filled(document.createElement(tag), attributes, children);
}

/**
 * The same in SVG.
 * @template {keyof SVGElementTagNameMap} Tag
 * @param {Tag} tag
 * @param {Attributes} attributes
 * @param {Children} children
 */
export function makeSvg(tag, attributes = {}, ...children) {
  return filled(document.createElementNS(SVG, tag), attributes, children);
}

/**
 * The element of this id, which the page has.
 * @param {string} id
 */
export function byId(id) {
  return byIdAs(id, HTMLElement);
}

/**
 * The element of this id, which is of this kind, such as HTMLInputElement.
 * @template {HTMLElement} Kind
 * @param {string} id
 * @param {new () => Kind} kind
 */
export function byIdAs(id, kind) {
  const element = document.getElementById(id);
  if (!(element instanceof kind)) throw new TypeError(`the page has no ${kind.name} #${id}`);
  return element;
}

/**
 * The first element below `parent` that matches, and is of this kind.
 * @template {Element} Kind
 * @param {ParentNode} parent
 * @param {string} selector
 * @param {new () => Kind} kind
 */
export function find(parent, selector, kind) {
  const element = parent.querySelector(selector);
  if (!(element instanceof kind)) throw new TypeError(`there is no ${kind.name} ${selector}`);
  return element;
}

/**
 * Writes only what differs: a text that is set again loses its selection, and is read out again.
 * @param {Element} element
 * @param {string} text
 */
export function setText(element, text) {
  if (element.textContent !== text) element.textContent = text;
}

/**
 * Leads to a search field by the key "/", unless the reader is typing or in a dialog.
 * @param {HTMLInputElement} field
 */
export function focusBySlash(field) {
  addEventListener("keydown", (event) => {
    const isModified = event.ctrlKey || event.metaKey || event.altKey;
    const { target } = event;
    const isTyping = target instanceof Element && target.closest("input:not([type=radio]), textarea, select, dialog");
    if (event.key !== "/" || isTyping || isModified) return;
    event.preventDefault();
    field.focus();
    field.select();
  });
}

/**
 * @template {Element} Kind
 * @param {Kind} element
 * @param {Attributes} attributes
 * @param {Children} children
 */
function filled(element, attributes, children) {
  for (const [name, value] of Object.entries(attributes)) {
    if (value == null || value === false) continue;
    if (typeof value === "function") element.addEventListener(name.slice(2), /** @type {EventListener} */ (value));
    else element.setAttribute(name, value === true ? "" : String(value));
  }
  element.append(...children.filter((child) => child != null));
  return element;
}

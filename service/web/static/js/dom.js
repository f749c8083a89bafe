// Elements from data. Text is always a text node: what a machine calls itself is shown and never parsed.

const SVG = "http://www.w3.org/2000/svg";

/** An element: `make("a", { href, class: "x", onclick }, "text", child, null)`. Null attributes and children are left out. */
export function make(tag, attributes = {}, ...children) {
  return filled(document.createElement(tag), attributes, children);
}

/** The same in SVG. */
export function makeSvg(tag, attributes = {}, ...children) {
  return filled(document.createElementNS(SVG, tag), attributes, children);
}

/** The element of this id, which the page has. */
export function byId(id) {
  return document.getElementById(id);
}

/** Writes only what differs: a text that is set anew loses its selection, and is read out again. */
export function setText(element, text) {
  if (element.textContent !== text) element.textContent = text;
}

function filled(element, attributes, children) {
  for (const [name, value] of Object.entries(attributes)) {
    if (value == null || value === false) continue;
    if (name.startsWith("on")) element.addEventListener(name.slice(2), value);
    else element.setAttribute(name, value === true ? "" : value);
  }
  element.append(...children.filter((child) => child != null));
  return element;
}

// The interfaces that an agent reports, as a list of switches and as patterns: both are the same two lists of patterns.

import { make } from "../shared/dom.js";
import { list } from "../shared/fields.js";

/**
 * A pattern that matches this name alone.
 * @param {string} name
 */
export function exactly(name) {
  return name.replace(/[*?[]/g, "[$&]");
}

/**
 * Whether a pattern of the agent matches: `*`, `?`, `[…]` and `[!…]`, as Python's fnmatch.
 * @param {string} pattern
 * @param {string} name
 */
export function matches(pattern, name) {
  let source = "";
  for (let place = 0; place < pattern.length; place += 1) {
    const letter = pattern.charAt(place);
    const end = letter === "[" ? pattern.indexOf("]", place + (pattern.charAt(place + 1) === "!" ? 3 : 2)) : -1;
    if (letter === "*") source += ".*";
    else if (letter === "?") source += ".";
    else if (end > 0) {
      const inside = pattern.slice(place + 1, end).replace(/\\/g, "\\\\").replace(/^\^/, "\\^").replace(/^!/, "^").replace(/[[\]]/g, "\\$&");
      source += `[${inside}]`;
      place = end;
    } else source += letter.replace(/[.+^${}()|[\]\\]/g, "\\$&");
  }
  try {
    return new RegExp(`^(?:${source})$`, "s").test(name);
  } catch {
    return false; // [z-a]
  }
}

/** The fields for the interfaces of one agent. */
export class InterfaceChoice {
  constructor() {
    this.include = list("Only these", { hint: "Names or patterns such as eth*, separated by commas. Leave empty for all." });
    this.exclude = list("Not these", { hint: "They take precedence over the agent’s own." });
    this.switches = make("ul", { class: "interfaces-list", "aria-label": "Interfaces to report", tabindex: "0" });
    this.element = make("div", { class: "alert-form" }, this.switches, make("div", { class: "alert-form wide-field" }, this.include.element, this.exclude.element));
    /** @type {string[]} */
    this.names = [];
    this.element.addEventListener("input", (event) => {
      if (event.target instanceof HTMLInputElement && event.target.type === "text") this.draw();
    });
  }

  /**
   * @param {Api.AgentConfig} config
   * @param {string[]} reported names in the newest heartbeat
   */
  show(config, reported) {
    this.include.input.value = (config.include_interfaces ?? []).join(", ");
    this.exclude.input.value = (config.exclude_interfaces ?? []).join(", ");
    // One that is switched off is reported no more, and has to be here to be switched on again.
    const off = (config.exclude_interfaces ?? []).map((pattern) => pattern.replace(/\[([*?[])\]/g, "$1")).filter((name) => !/[*?[]/.test(name));
    this.names = [...new Set([...this.names, ...reported, ...off])].sort((a, b) => a.localeCompare(b, undefined, { numeric: true }));
    this.draw();
  }

  /** The two lists; undefined: none. */
  read() {
    return {
      include_interfaces: /** @type {string[] | undefined} */ (this.include.read()),
      exclude_interfaces: /** @type {string[] | undefined} */ (this.exclude.read()),
    };
  }

  draw() {
    const { include_interfaces: include = [], exclude_interfaces: exclude = [] } = this.read();
    const focused = this.switches.contains(document.activeElement) ? document.activeElement?.getAttribute("data-name") : null;
    this.switches.replaceChildren(...this.names.map((name) => {
      const byPattern = exclude.find((pattern) => pattern !== exactly(name) && matches(pattern, name));
      const isMissing = include.length > 0 && !include.some((pattern) => matches(pattern, name));
      const why = byPattern ? `left out by ${byPattern}` : isMissing ? "not among “Only these”" : "";
      const box = make("input", { type: "checkbox", "data-name": name, disabled: why !== "" });
      box.checked = !why && !exclude.includes(exactly(name));
      box.addEventListener("change", () => this.set(name, box.checked));
      return make("li", {}, make("label", { class: "check" }, box, make("span", { class: "name" }, name), why ? make("span", { class: "muted" }, why) : null));
    }));
    if (!this.names.length) this.switches.append(make("li", { class: "muted" }, "It reports no interface."));
    for (const box of this.switches.querySelectorAll("input")) if (focused && box.dataset.name === focused) box.focus();
  }

  /**
   * @param {string} name
   * @param {boolean} isOn
   */
  set(name, isOn) {
    const { exclude_interfaces: exclude = [] } = this.read();
    const others = exclude.filter((pattern) => pattern !== exactly(name));
    this.exclude.input.value = [...others, ...(isOn ? [] : [exactly(name)])].join(", ");
    this.exclude.input.dispatchEvent(new Event("change", { bubbles: true }));
    this.draw();
  }
}

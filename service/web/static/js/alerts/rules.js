// The list of rules.

import { make } from "../shared/dom.js";
import { BADGES, condition, scope } from "../shared/alert-words.js";

/** @import { Units } from "../shared/choices.js" */
/** @import { Rule } from "../shared/alert-words.js" */

/** @type {Record<Rule["managed_by"], string>} */
const MANAGED = { api: "", file: "set by a file", preset: "as installed" };

/**
 * @param {Rule[]} rules
 * @param {Map<string, number>} firing how many alerts of each rule fire
 * @param {{ units: Units, onSwitch: (rule: Rule, isOn: boolean) => void, onEdit: (rule: Rule) => void, onRemove: (rule: Rule) => void }} options
 */
export function ruleTable(rules, firing, { units, onSwitch, onEdit, onRemove }) {
  return make(
    "table", {},
    make("caption", { class: "unseen" }, "Rules, by name"),
    make("thead", {}, make(
      "tr", {}, ...["On", "Rule", "Alert when", "For", "Severity", "Firing"].map((name) => make("th", { scope: "col" }, name)),
      make("th", { scope: "col" }, make("span", { class: "unseen" }, "Change")),
    )),
    make("tbody", {}, ...rules.map((rule) => {
      const isFixed = rule.managed_by === "file";
      const isOn = make("input", { type: "checkbox", "aria-label": `${rule.id} is on`, disabled: isFixed });
      isOn.checked = rule.enabled ?? true;
      isOn.addEventListener("change", () => onSwitch(rule, isOn.checked));
      return make(
        "tr", { class: isOn.checked ? "" : "off" },
        make("td", {}, isOn),
        make("th", { scope: "row" }, rule.id, make("span", { class: "muted reason" }, MANAGED[rule.managed_by])),
        make("td", {}, condition(rule, units)),
        make("td", {}, scope(rule)),
        make("td", {}, make("span", { class: `badge ${BADGES[rule.severity ?? "warning"]}` }, rule.severity ?? "warning")),
        make("td", { class: "number" }, String(firing.get(rule.id) ?? 0)),
        make(
          "td", { class: "number actions" },
          isFixed ? null : make("button", { type: "button", "aria-label": `Change ${rule.id}`, onclick: () => onEdit(rule) }, "Change"),
          isFixed ? null : make("button", { type: "button", class: "quiet", "aria-label": `Remove ${rule.id}`, onclick: () => onRemove(rule) }, "Remove"),
        ),
      );
    })),
  );
}

/**
 * A rule as PUT takes it: without what only answers have.
 * @param {Rule} rule
 * @returns {any}
 */
export function asSent(rule) {
  const { id: _, managed_by: __, revision: ___, ...sent } = rule;
  return Object.fromEntries(Object.entries(sent).filter(([, value]) => value !== null));
}

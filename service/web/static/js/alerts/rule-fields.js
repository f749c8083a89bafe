// The fields of each kind of rule, filled with what a rule says or with what the service would take.

import { bitsPerSecond, check, list, number, octets, seconds, select } from "../shared/fields.js";
import { DIRECTIONS } from "../shared/alert-words.js";

/** @import { Field } from "../shared/fields.js" */
/** @import { Kind, Rule } from "../shared/alert-words.js" */

const BOUNDS = { above_bps: "above", below_bps: "below", above_percent: "above, in % of the line", below_percent: "below, in % of the line" };

/**
 * The fields of a kind, by the API's names. `rule`: one of this kind, or null for a new one.
 * @param {Kind} kind
 * @param {Rule | null} rule
 * @returns {{ elements: HTMLElement[], read: () => Record<string, unknown> }}
 */
export function fieldsOf(kind, rule) {
  if (kind === "rate") return rate(rule?.kind === "rate" ? rule : null);
  const fields = MAKERS[kind](/** @type {any} */ (rule?.kind === kind ? rule : {}));
  return {
    elements: Object.values(fields).map((field) => field.element),
    read: () => {
      const found = Object.fromEntries(Object.entries(fields).map(([name, field]) => [name, field.read()]));
      return kind === "quota" ? { ...found, percent: numbers(found.percent) } : found;
    },
  };
}

/** @type {Record<Exclude<Kind, "rate">, (rule: any) => Record<string, Field>>} */
const MAKERS = {
  silent: (rule) => ({
    after_seconds: seconds("Silent for", { value: rule.after_seconds, hint: "Empty: three intervals of its agent, 90 s at least." }),
  }),
  link: (rule) => ({
    down_seconds: seconds("Down for", { value: rule.down_seconds ?? 60 }),
    flaps: number("Or changes", { value: rule.flaps ?? 4, min: 2, step: 1 }),
    window_seconds: seconds("within", { value: rule.window_seconds ?? 600 }),
  }),
  quota: (rule) => ({
    percent: list("Percent used", { value: rule.percent ?? [80, 100], required: true }),
    forecast: check("Also when 100 % are expected by the month's end", rule.forecast ?? true),
  }),
  filesystem: (rule) => ({
    above_percent: number("Percent used", { value: rule.kind ? rule.above_percent : 90, min: 1, max: 100 }),
    below_bytes: octets("Or less left than", { value: rule.below_bytes }),
    full_within_hours: number("Or full within", { value: rule.kind ? rule.full_within_hours : 24, min: 0.1, max: 720, after: "hours, by its trend" }),
    unreachable_seconds: seconds("Or unreachable for", { value: rule.unreachable_seconds ?? 600 }),
  }),
  errors: (rule) => ({
    count: number("Errors and drops", { value: rule.count ?? 100, min: 1, step: 1 }),
    percent: number("and of the packets", { value: rule.percent ?? 0.1, min: 0, max: 100, after: "%" }),
    packets: number("of at least", { value: rule.packets ?? 10_000, min: 0, step: 1, after: "packets" }),
    window_seconds: seconds("within", { value: rule.window_seconds ?? 600 }),
  }),
  account: (rule) => ({ resets: number("Counter resets within a day", { value: rule.resets ?? 1, min: 1, max: 100, step: 1 }) }),
  agent: () => ({}),
};

/**
 * One bound of four, in its own unit.
 * @param {Rule | null} rule
 */
function rate(rule) {
  const bounds = /** @type {(keyof typeof BOUNDS)[]} */ (Object.keys(BOUNDS));
  const given = bounds.find((name) => rule?.[name] != null) ?? "above_bps";
  const direction = select("Traffic", DIRECTIONS, rule?.direction ?? "max");
  const which = select("is", BOUNDS, given);
  const bps = bitsPerSecond("Bound", { value: given.endsWith("bps") ? rule?.[given] : null });
  const percent = number("Bound", { value: given.endsWith("percent") ? rule?.[given] : null, min: 0.1, max: 100, after: "%" });
  const window = seconds("as the mean over", { value: rule?.window_seconds ?? 300 });
  const clear = number("Over at", { value: rule?.clear_percent ?? 90, min: 1, max: 100, after: "% of the bound" });
  const show = () => {
    bps.element.hidden = which.input.value.endsWith("percent");
    percent.element.hidden = !bps.element.hidden;
  };
  which.input.addEventListener("change", show);
  show();
  return {
    elements: [direction, which, bps, percent, window, clear].map((field) => field.element),
    read: () => ({
      direction: direction.read(), window_seconds: window.read(), clear_percent: clear.read(),
      [which.input.value]: (which.input.value.endsWith("percent") ? percent : bps).read() ?? null,
    }),
  };
}

/** @param {unknown} texts */
function numbers(texts) {
  return Array.isArray(texts) ? texts.map(Number) : undefined;
}

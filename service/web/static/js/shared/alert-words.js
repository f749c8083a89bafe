// Rules and alerts in words.

import { bytes, count, duration, NOTHING, percent, roundRate } from "./format.js";

/** @import { Units } from "./choices.js" */
/** @typedef {Api.AlertRule} Rule what its kind does not have is missing or null */
/** @typedef {Rule["kind"]} Kind */
/** @typedef {Rule["severity"]} Severity */

/** @type {Record<Kind, string>} */
export const KINDS = {
  silent: "A server is silent", link: "A link is down or flaps", rate: "A rate is above or below a bound",
  filesystem: "A filesystem is full, or will be", quota: "A quota is used up", errors: "Errors and drops",
  account: "Counts are in doubt", agent: "An agent is in trouble",
};

/** @type {Record<Severity, "bad" | "warn" | "info">} */
export const BADGES = { critical: "bad", warning: "warn", info: "info" };

/** Directions of a rate rule. */
export const DIRECTIONS = { rx: "received", tx: "sent", sum: "received and sent together", max: "the greater of received and sent" };

/** @type {Record<string, string>} */
const ENDS = {
  rule_removed: "the rule was removed", rule_disabled: "the rule was switched off", out_of_scope: "the rule no longer covers it",
  server_removed: "the server was removed", gone: "it has been gone for a day", period_over: "the billing month ended",
  moved: "the interface has another alert of the same rule",
};

/**
 * What has to be true for an alert: "received above 100 Mbit/s over 5 min".
 * @param {Rule} rule
 * @param {Units} units
 */
export function condition(rule, units) {
  switch (rule.kind) {
    case "silent":
      return `no heartbeat for ${rule.after_seconds ? duration(rule.after_seconds) : "three intervals, 90 s at least"}`;
    case "link":
      return `down for ${duration(rule.down_seconds ?? 60)}, or ${rule.flaps ?? 4} changes within ${duration(rule.window_seconds ?? 600)}`;
    case "rate":
      return `${DIRECTIONS[rule.direction ?? "max"]} ${bound(rule, units)} over ${duration(rule.window_seconds ?? 300)}`;
    case "quota":
      return [...[rule.percent ?? [80, 100]].flat().map((one) => `${one} % used`), ...(rule.forecast === false ? [] : ["100 % expected"])].join(", ");
    case "filesystem":
      return filesystem(rule);
    case "errors":
      return `${count(rule.count ?? 100)} errors and drops within ${duration(rule.window_seconds ?? 600)}, and ${rule.percent ?? 0.1} % of ${count(rule.packets ?? 10_000)} packets or more`;
    case "account":
      return `${rule.resets ?? 1} or more counter resets within a day, a reading that is not plausible, or two machines under one id`;
    case "agent":
      return "heartbeats given up, refused or in memory only, lateness, or a wrong clock";
  }
}

/**
 * @param {Rule} rule
 * @param {Units} units
 */
function bound(rule, units) {
  if (rule.above_bps != null) return `above ${roundRate(rule.above_bps, units)}`;
  if (rule.below_bps != null) return `below ${roundRate(rule.below_bps, units)}`;
  if (rule.above_percent != null) return `above ${rule.above_percent} % of the line`;
  return `below ${rule.below_percent} % of the line`;
}

/** @param {Rule} rule */
function filesystem(rule) {
  const isDefault = rule.above_percent == null && rule.below_bytes == null && rule.full_within_hours == null;
  const above = isDefault ? 90 : rule.above_percent;
  const hours = isDefault ? 24 : rule.full_within_hours;
  return [
    above == null ? null : `${above} % full`,
    rule.below_bytes == null ? null : `less than ${bytes(rule.below_bytes)} left`,
    hours == null ? null : `full within ${duration(hours * 3600)}`,
    `unreachable for ${duration(rule.unreachable_seconds ?? 600)}`,
  ].filter((one) => one !== null).join(", ");
}

/**
 * What a rule is for: "web-*, db-1 · eth*", or "every server".
 * @param {Rule} rule
 */
export function scope({ scope: of = {} }) {
  const parts = [of.servers, of.tags, of.interfaces, of.kinds].filter((one) => one?.length).map((one) => one?.join(", "));
  return parts.join(" · ") || "every server";
}

/**
 * A value of an alert, in the unit of its rule's bound.
 * @param {Rule | undefined} rule undefined: it was removed
 * @param {number | null} value
 * @param {Units} units
 */
export function valueWords(rule, value, units) {
  if (value === null || rule === undefined) return NOTHING;
  switch (rule.kind) {
    case "silent":
      return duration(value);
    case "rate":
      return rule.above_bps == null && rule.below_bps == null ? percent(value) : roundRate(value, units);
    case "quota":
      return percent(value);
    default:
      return NOTHING; // several conditions, each of a unit of its own: the reason says what
  }
}

/**
 * Why an alert began or ended, as a sentence's part.
 * @param {string | null} reason
 */
export function reasonWords(reason) {
  return ENDS[reason ?? ""] ?? reason ?? "";
}

/**
 * What an alert is about beside its server: an interface, a mount point, a level; nothing: the server.
 * @param {{ server_id: string, subject: string }} alert
 */
export function subjectWords({ server_id: server, subject }) {
  return subject ? `${server} · ${subject}` : server;
}

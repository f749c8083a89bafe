// What a reader should know of a server at once, with what to do about it: the alerts that fire for it, by the service's
// rules; and, as hints, what passes by itself or somebody has set, which no rule is about.

import { get } from "../shared/api.js";
import { definitions, intervalOf } from "../shared/definitions.js";
import { bytes, count, duration, moment } from "../shared/format.js";
import { BADGES, condition, reasonWords, valueWords } from "../shared/alert-words.js";

/** @import { Units } from "../shared/choices.js" */
/** @import { Rule } from "../shared/alert-words.js" */
/** @typedef {{ level: "bad" | "warn" | "info", words: string, remedy: string }} Warning */

/**
 * Alerts of a server that fire, and all rules by name.
 * @typedef {{ alerts: Api.Alert[], rules: Map<string, Rule> }} Firing
 */

const MOST = 1000;
const RANK = { bad: 0, warn: 1, info: 2 };

/** What helps, by a word of the reason of an alert of kind `agent` or `account`. */
const REMEDIES = Object.entries({
  "were dropped": "No traffic is lost: the next heartbeat counts it. To keep them all, increase LINKBEAT_SPOOL_MIB.",
  "were rejected": "The reasons are in refused.ndjson in its spool.",
  "in memory": "The agent cannot write to its disk: “linkbeat-agent doctor” shows the problem with its spool.",
  "left out": "Exclude unimportant interfaces, such as veth*, with LINKBEAT_EXCLUDE_INTERFACES.",
  "its clock": "Times on this page are from its clock. Synchronize it (“timedatectl set-ntp true”).",
  "two machines": "Both are counted, but cannot be distinguished: set another LINKBEAT_SERVER_ID on one of them.",
  "sent again": "The first values were kept. Does another machine, or a second agent, use this name?",
});

/** @type {Firing} */
export const NONE_FIRES = { alerts: [], rules: new Map() };

/**
 * Throws ApiError.
 * @param {string} server
 * @param {AbortSignal} signal
 * @returns {Promise<Firing>}
 */
export async function loadFiring(server, signal) {
  const [{ alerts }, { rules }] = await Promise.all([
    get("/api/v1/alerts", { query: { server, state: "firing", limit: MOST }, signal }),
    get("/api/v1/alert-rules", { query: { limit: MOST }, signal }),
  ]);
  return { alerts, rules: new Map(rules.map((rule) => [rule.id, rule])) };
}

/**
 * What is wrong, the worst first.
 * @param {{ server: Api.Server, agent: Api.Agent }} machine
 * @param {Firing} firing
 * @param {Units} units
 * @param {number} now ms since 1970
 */
export function warnings({ server, agent }, { alerts, rules }, units, now) {
  const found = alerts.map((alert) => ofAlert(alert, rules.get(alert.rule), { server, units, now }));
  const interval = intervalOf(agent);
  if (server.status !== "offline" && agent.lateness_seconds > interval) {
    found.push({
      level: "info",
      words: `Its last heartbeat came ${duration(agent.lateness_seconds)} late.`,
      remedy: `They are due every ${duration(interval)}: check the load of the machine and its network.`,
    });
  }
  if (server.paused) {
    found.push({
      level: "info",
      words: "Paused: the agent measures nothing.",
      remedy: `“DELETE /api/v1/servers/${server.id}/config” resumes it.`,
    });
  }
  if (agent.queued && (agent.oldest_seconds ?? 0) > definitions().offline_after_intervals * interval) {
    found.push({
      level: "info",
      words: `${count(agent.queued)} heartbeat${agent.queued === 1 ? "" : "s"} wait on the machine, the oldest for ${duration(agent.oldest_seconds)}.`,
      remedy: "They are delivered in batches alongside live heartbeats, and will fill the gap.",
    });
  }
  return found.sort((one, other) => RANK[one.level] - RANK[other.level]);
}

/**
 * @param {Api.Alert} alert
 * @param {Rule | undefined} rule undefined: not known yet
 * @param {{ server: Api.Server, units: Units, now: number }} page
 * @returns {Warning}
 */
function ofAlert(alert, rule, { server, units, now }) {
  const level = BADGES[alert.severity ?? "warning"];
  const asides = [
    alert.held ? "No data: the alert keeps its state." : "",
    alert.cleared_at ? `Over since ${moment(alert.cleared_at, now)}.` : "",
    alert.is_muted ? "Muted: no messages are sent." : "",
    rule?.note ?? "", rule?.runbook ?? "",
  ];
  const words = ofKind(alert, rule, server, units, now);
  return { level, words: words.words, remedy: [words.remedy, ...asides].filter(Boolean).join(" ") };
}

/**
 * @param {Api.Alert} alert
 * @param {Rule | undefined} rule
 * @param {Api.Server} server
 * @param {Units} units
 * @param {number} now
 */
function ofKind(alert, rule, server, units, now) {
  const reason = reasonWords(alert.reason);
  switch (alert.kind) {
    case "silent":
      return {
        words: `No heartbeat since ${moment(alert.since, now)}.`,
        remedy: "Is the machine running, and can it reach this service? Check “systemctl status linkbeat-agent” and " +
          "“linkbeat-agent doctor” on it. If its agent runs, it delivers its heartbeats later.",
      };
    case "filesystem": {
      const filesystem = server.filesystems.find((one) => one.mount_point === alert.subject);
      const remedy = reason === "unreachable" ? "The sizes are the last known ones: check the mount."
        : filesystem ? `${bytes(filesystem.available_bytes)} are available.` : "";
      return { words: `${alert.subject}: ${reason}.`, remedy };
    }
    case "quota":
      return {
        words: alert.subject === "forecast" ? "Its quota will probably be used up." : `${alert.subject} of its quota is used.`,
        remedy: `${reason}.`,
      };
    case "account":
    case "agent":
      return {
        words: `${reason.charAt(0).toUpperCase()}${reason.slice(1)}.`,
        remedy: REMEDIES.filter(([words]) => reason.includes(words)).map(([, remedy]) => remedy).join(" "),
      };
    default: { // rate, link and errors, and alerts whose rule was removed since
      const value = valueWords(rule, alert.value, units);
      const what = reason || (rule ? condition(rule, units) : `rule ${alert.rule}`);
      return {
        words: `${alert.subject}: ${what}.`,
        remedy: `Since ${moment(alert.since, now)}, by the rule ${alert.rule}${rule?.kind === "rate" ? `; now ${value}` : ""}.`,
      };
    }
  }
}

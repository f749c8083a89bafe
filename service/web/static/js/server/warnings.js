// What a reader should know of a server at once, each in words, with what to do about it.

import { definitions, intervalOf } from "../shared/definitions.js";
import { bytes, count, duration, moment, percent } from "../shared/format.js";
import { isOutOfOrder, isReadOnly } from "./machine.js";

/** @typedef {{ level: "bad" | "warn", words: string, remedy: string }} Warning */

/**
 * What is wrong, the worst first.
 * @param {Api.Server} server
 * @param {Api.Agent} agent
 * @param {Api.QuotaState | null} quota null: none is set
 * @param {number} now ms since 1970
 */
export function warnings(server, agent, quota, now) {
  /** @type {Warning[]} */
  const found = [];
  /**
   * @param {string} words
   * @param {string} remedy
   * @param {Warning["level"]} level
   */
  const warn = (words, remedy, level = "warn") => found.push({ level, words, remedy });
  const seen = Date.parse(agent.received_at);
  const interval = intervalOf(agent);
  const { clock_skew_seconds: skew, filesystem_full_percent: full, offline_after_intervals: offline } = definitions();

  if (server.status === "offline") {
    warn(
      `No heartbeat since ${moment(seen, now)}.`,
      "Is the machine on, and does it reach this service? On it, “systemctl status linkbeat-agent” and " +
        "“linkbeat-agent doctor” tell. What its agent measures meanwhile comes later.",
      "bad",
    );
  } else if (agent.lateness_seconds > interval) {
    warn(
      `Its last heartbeat came ${duration(agent.lateness_seconds)} late.`,
      `They are due every ${duration(interval)}: look at the machine's load and its line.`,
    );
  }
  if (server.paused) {
    warn(
      "Paused: the agent was asked to measure nothing.",
      `“DELETE /api/v1/servers/${server.id}/config” lets it go on.`,
    );
  }
  if (server.shared_since) {
    warn(
      `Two machines report as ${server.id}, last seen ${moment(server.shared_at, now)}.`,
      "Each is counted, but they cannot be told apart: give one of them a name of its own by LINKBEAT_SERVER_ID.",
      "bad",
    );
  } else if (server.conflicts > 0) {
    warn(
      `${counted(server.conflicts, "heartbeat")} came again with other values; the first ones stand.`,
      "Does another machine, or a second agent, report under this name?",
    );
  }
  for (const one of server.filesystems) {
    if (isOutOfOrder(one)) {
      warn(`${one.mount_point} is ${one.state}.`, "Its numbers are the last that were known: look at the mount.");
    } else if ((one.percent ?? 0) >= full && !isReadOnly(one)) {
      warn(`${one.mount_point} is ${percent(one.percent)} full.`, `${bytes(one.available_bytes)} are left there.`);
    }
  }
  if (quota && (quota.state !== "ok" || (quota.expected_bytes ?? 0) > quota.bytes)) {
    const words = {
      over: "Its quota is used up.", near: `${percent(quota.used_percent)} of its quota is used.`,
      ok: "Its quota is likely to be used up.",
    };
    const forecast = quota.expected_bytes == null ? "" : `; about ${bytes(quota.expected_bytes)} by its end, as it goes on`;
    warn(words[quota.state], `${bytes(quota.used_bytes)} of ${bytes(quota.bytes)} in this month${forecast}.`);
  }
  if (agent.clock_skew_seconds != null && Math.abs(agent.clock_skew_seconds) >= skew) {
    const way = agent.clock_skew_seconds > 0 ? "behind" : "ahead of";
    warn(
      `Its clock is ${duration(Math.abs(agent.clock_skew_seconds))} ${way} the service's.`,
      "Times here are by its clock: let it be set from the network (“timedatectl set-ntp true”).",
    );
  }
  if (agent.dropped) {
    warn(
      `${counted(agent.dropped, "heartbeat")} had to be given up for want of room since the agent's start.`,
      "Traffic is counted all the same, in the next one; a larger LINKBEAT_SPOOL_MIB keeps them all.",
    );
  }
  if (agent.rejected) {
    warn(
      `${counted(agent.rejected, "heartbeat")} of this agent were refused permanently.`,
      "Why, is in refused.ndjson in its spool.",
    );
  }
  if (agent.spool === "memory") {
    warn(
      "The agent cannot write to its disk: what is not delivered yet is in its memory alone.",
      "“linkbeat-agent doctor” tells what is wrong with its spool.",
    );
  }
  if (agent.queued && (agent.oldest_seconds ?? 0) > offline * interval) {
    warn(
      `${counted(agent.queued, "heartbeat")} wait on the machine, the oldest for ${duration(agent.oldest_seconds)}.`,
      "They come in batches alongside the live ones; the gap fills itself.",
    );
  }
  if (agent.truncated) {
    warn(
      "It has more interfaces than a heartbeat holds: some are left out.",
      "LINKBEAT_EXCLUDE_INTERFACES leaves out those that do not matter, such as veth*.",
    );
  }
  return found.sort((one, other) => Number(other.level === "bad") - Number(one.level === "bad"));
}

/**
 * @param {number} number
 * @param {string} noun
 */
function counted(number, noun) {
  return `${count(number)} ${noun}${number === 1 ? "" : "s"}`;
}

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
      "Is the machine running, and can it reach this service? Check “systemctl status linkbeat-agent” and " +
        "“linkbeat-agent doctor” on it. If its agent runs, it delivers its heartbeats later.",
      "bad",
    );
  } else if (agent.lateness_seconds > interval) {
    warn(
      `Its last heartbeat came ${duration(agent.lateness_seconds)} late.`,
      `They are due every ${duration(interval)}: check the load of the machine and its network.`,
    );
  }
  if (server.paused) {
    warn(
      "Paused: the agent measures nothing.",
      `“DELETE /api/v1/servers/${server.id}/config” resumes it.`,
    );
  }
  if (server.shared_since) {
    warn(
      `Two machines report as ${server.id}, last seen ${moment(server.shared_at, now)}.`,
      "Both are counted, but cannot be distinguished: set another LINKBEAT_SERVER_ID on one of them.",
      "bad",
    );
  } else if (server.conflicts > 0) {
    warn(
      `${counted(server.conflicts, "heartbeat")} were received again with different values; the first values were kept.`,
      "Does another machine, or a second agent, use this name?",
    );
  }
  for (const one of server.filesystems) {
    if (isOutOfOrder(one)) {
      warn(`${one.mount_point} is ${one.state}.`, "The sizes are the last known ones: check the mount.");
    } else if ((one.percent ?? 0) >= full && !isReadOnly(one)) {
      warn(`${one.mount_point} is ${percent(one.percent)} full.`, `${bytes(one.available_bytes)} are available.`);
    }
  }
  if (quota && (quota.state !== "ok" || (quota.expected_bytes ?? 0) > quota.bytes)) {
    const words = {
      over: "Its quota is used up.", near: `${percent(quota.used_percent)} of its quota is used.`,
      ok: "Its quota will probably be used up.",
    };
    const forecast = quota.expected_bytes == null ? "" : `; about ${bytes(quota.expected_bytes)} by the end of the month, at the current rate`;
    warn(words[quota.state], `${bytes(quota.used_bytes)} of ${bytes(quota.bytes)} this month${forecast}.`);
  }
  if (agent.clock_skew_seconds != null && Math.abs(agent.clock_skew_seconds) >= skew) {
    const way = agent.clock_skew_seconds > 0 ? "behind" : "ahead of";
    warn(
      `Its clock is ${duration(Math.abs(agent.clock_skew_seconds))} ${way} the service's.`,
      "Times on this page are from its clock. Synchronize it (“timedatectl set-ntp true”).",
    );
  }
  if (agent.dropped) {
    warn(
      `${counted(agent.dropped, "heartbeat")} were dropped for lack of space since the agent started.`,
      "No traffic is lost: the next heartbeat counts it. To keep them all, increase LINKBEAT_SPOOL_MIB.",
    );
  }
  if (agent.rejected) {
    warn(
      `${counted(agent.rejected, "heartbeat")} of this agent were rejected permanently.`,
      "The reasons are in refused.ndjson in its spool.",
    );
  }
  if (agent.spool === "memory") {
    warn(
      "The agent cannot write to its disk: undelivered heartbeats are only in memory.",
      "“linkbeat-agent doctor” shows the problem with its spool.",
    );
  }
  if (agent.queued && (agent.oldest_seconds ?? 0) > offline * interval) {
    warn(
      `${counted(agent.queued, "heartbeat")} wait on the machine, the oldest for ${duration(agent.oldest_seconds)}.`,
      "They are delivered in batches alongside live heartbeats, and will fill the gap.",
    );
  }
  if (agent.truncated) {
    warn(
      "It has more interfaces than fit into a heartbeat: some are left out.",
      "Exclude unimportant interfaces, such as veth*, with LINKBEAT_EXCLUDE_INTERFACES.",
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

// The top of a server's page: is it alive, how much does it move now, what did it move, and what will the month come
// to.

import { choice } from "../shared/choices.js";
import { now } from "../shared/clock.js";
import { byId, byIdAs, make, setText } from "../shared/dom.js";
import { age, bytes, duration, moment, rate } from "../shared/format.js";
import { pair, setPair } from "../shared/pair.js";
import { standing } from "../shared/standing.js";
import { lastDay, monthName } from "./usage.js";
import { warnings } from "./warnings.js";

/** @import { Firing } from "./warnings.js" */

/**
 * A list of facts: pairs of a name and a value, without those that have none.
 * @param {HTMLElement} element
 * @param {[string, string | null | undefined | false][]} facts
 */
export function showFacts(element, facts) {
  element.replaceChildren();
  for (const [name, value] of facts) {
    if (value) element.append(make("div", {}, make("dt", {}, name), make("dd", {}, value)));
  }
}

/**
 * @param {Api.Server} server
 * @param {Api.Agent} agent
 * @param {Firing} firing
 */
export function showHead(server, agent, firing) {
  document.title = `${server.display_name ?? server.id} · Linkbeat`;
  setText(byId("name"), server.display_name ?? server.id);
  byIdAs("manage", HTMLAnchorElement).href = `/manage?server=${encodeURIComponent(server.id)}#servers`;
  showFacts(byId("facts"), [
    ["Id", server.display_name && server.id],
    ["Hostname", server.hostname],
    ["Tags", server.tags.join(", ")],
    ["Up for", server.latest_metrics?.uptime_seconds == null ? null : duration(server.latest_metrics.uptime_seconds)],
    ["Primary", server.primary_interface],
    ["Agent", server.agent_version],
    ["System", systemOf(server.os_info)],
    ["Known since", moment(server.first_seen, now())],
  ]);
  showNow(server);
  showStanding(agent);
  const found = warnings({ server, agent }, firing, choice("units"), now());
  byId("warnings").hidden = !found.length;
  byId("warnings").replaceChildren(...found.map((one) =>
    make("li", { class: one.level }, make("strong", {}, one.words), ` ${one.remedy}`)));
}

/**
 * Is it alive? In the words of the fleet's page; with time, the answer changes by itself.
 * @param {Api.Agent} agent
 */
export function showStanding(agent) {
  const found = standing(agent, now());
  setText(byId("status"), found.words);
  byId("status").className = `badge ${found.kind}`;
  setText(byId("seen"), `last heartbeat ${age(Date.parse(agent.received_at), now())}`);
}

/** @param {Record<string, unknown> | null} info */
function systemOf(info) {
  const name = info?.pretty_name ?? info?.name;
  return typeof name === "string" ? name : null;
}

/**
 * @param {string} name
 * @param {string} rx
 * @param {string} tx
 * @param {string} note
 */
function figure(name, rx, tx, note) {
  const element = byId(`figure-${name}`);
  if (!element.children.length) element.append(...pair());
  setPair(element, rx, tx);
  setText(byId(`note-${name}`), note);
}

/**
 * The sum over the lowest interfaces, as in every total: each byte once.
 * @param {Api.Server} server
 */
function showNow(server) {
  const units = choice("units");
  const lowest = server.network_interfaces.filter((one) => one.is_lowest && !one.is_folded);
  /** @param {"rx_bps" | "tx_bps"} field */
  const sum = (field) => {
    const rates = lowest.map((one) => one[field]).filter((bps) => bps != null);
    return server.status === "online" && rates.length ? rates.reduce((/** @type {number} */ total, bps) => total + bps, 0) : null;
  };
  const rx = sum("rx_bps");
  const at = new Date(server.last_seen).toLocaleTimeString([]);
  figure("now", rate(rx, units), rate(sum("tx_bps"), units), rx == null ? "no data" : `measured at ${at}`);
}

/**
 * @param {Api.Usage} today of today alone
 * @param {Api.Usage} usage with the month under way
 */
export function showFigures(today, usage) {
  const units = choice("units");
  const sum = today.days.at(-1);
  figure("today", bytes(sum?.rx_bytes), bytes(sum?.tx_bytes), sum ? `since midnight, ${today.time_zone}` : "no data yet");
  const { month, time_zone: zone } = usage;
  setText(byId("title-month"), monthName(month.since, zone));
  const has = month.samples > 0;
  const forecast = month.expected
    ? `about ${bytes(month.expected.total_bytes)} in total by ${lastDay(month.until, zone)}`
    : has ? "forecast available after a day" : "no data yet";
  figure("month", bytes(has ? month.rx_bytes : null), bytes(has ? month.tx_bytes : null), forecast);
  const rates = month.percentile?.of_samples;
  const note = rates ? `of this month's 5-minute rates; both\u00a0${rate(rates.sum_bps, units)}` : "no data yet";
  figure("percentile", rate(rates?.rx_bps, units), rate(rates?.tx_bps, units), note);
}

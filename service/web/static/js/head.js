// The top of a server's page: is it alive, how much does it move now, what did it move, and what will the month come to.

import { choice } from "./choices.js";
import { byId, make, setText } from "./dom.js";
import { standing } from "./fleet-row.js";
import { age, bytes, duration, moment, rate } from "./format.js";
import { pair, setPair } from "./pair.js";
import { lastDay, monthName } from "./usage.js";
import { UNSAID_INTERVAL_SECONDS, warnings } from "./warnings.js";

/** A list of facts: pairs of a name and what is to be said, without those of which there is nothing. */
export function showFacts(element, facts) {
  const known = facts.filter(([, value]) => value);
  element.replaceChildren(...known.map(([name, value]) => make("div", {}, make("dt", {}, name), make("dd", {}, value))));
}

/** What GET /servers/{id}, and its /agent and /quota say; no quota: null. */
export function showHead(server, agent, quota) {
  const now = Date.now();
  document.title = `${server.id} · Linkbeat`;
  setText(byId("name"), server.id);
  showFacts(byId("facts"), [
    ["Hostname", server.hostname],
    ["Up for", server.latest_metrics?.uptime_seconds == null ? null : duration(server.latest_metrics.uptime_seconds)],
    ["Primary", server.primary_interface],
    ["Agent", server.agent_version],
    ["System", systemOf(server.os_info)],
    ["Known since", moment(server.first_seen, now)],
  ]);
  showNow(server);
  showStanding(agent);
  const found = warnings(server, agent, quota, now);
  byId("warnings").hidden = !found.length;
  byId("warnings").replaceChildren(...found.map((one) =>
    make("li", { class: one.level }, make("strong", {}, one.words), ` ${one.remedy}`)));
}

/** Is it alive? In the words of the fleet's page; with time, the answer changes by itself. */
export function showStanding(agent) {
  const interval = agent.interval_seconds ?? UNSAID_INTERVAL_SECONDS;
  let found = standing({ ...agent, interval_seconds: interval }, Date.now());
  const isOffline = agent.status === "offline";
  // Where it is otherwise, this browser's clock is wrong: what the service says holds.
  if ((found.name === "silent") !== isOffline) {
    found = isOffline ? { words: "Silent", kind: "bad" } : { words: agent.paused ? "Paused" : "Up", kind: agent.paused ? "warn" : "ok" };
  }
  setText(byId("status"), found.words);
  byId("status").className = `badge ${found.kind}`;
  showAge(agent);
}

export function showAge(agent) {
  setText(byId("seen"), `last heartbeat ${age(Date.parse(agent.received_at), Date.now())}`);
}

function systemOf(info) {
  const name = info?.pretty_name ?? info?.name;
  return typeof name === "string" ? name : null;
}

function figure(name, rx, tx, note) {
  const element = byId(`figure-${name}`);
  if (!element.children.length) element.append(...pair());
  setPair(element, rx, tx);
  setText(byId(`note-${name}`), note);
}

/** The sum over the lowest interfaces, as in every total: each byte once. */
function showNow(server) {
  const units = choice("units");
  const lowest = server.network_interfaces.filter((one) => one.is_lowest && !one.is_folded);
  const sum = (field) => {
    const rates = lowest.map((one) => one[field]).filter((bps) => bps != null);
    return server.status === "online" && rates.length ? rates.reduce((total, bps) => total + bps, 0) : null;
  };
  const rx = sum("rx_bps");
  const at = new Date(server.last_seen).toLocaleTimeString([]);
  figure("now", rate(rx, units), rate(sum("tx_bps"), units), rx == null ? "no data" : `measured at ${at}`);
}

/** What GET /usage/{id} says of today and of the month under way. */
export function showFigures(today, usage) {
  const units = choice("units");
  const sum = today.days.at(-1);
  figure("today", bytes(sum?.rx_bytes), bytes(sum?.tx_bytes), sum ? `since midnight, ${today.time_zone}` : "no data yet");
  const { month, time_zone: zone } = usage;
  setText(byId("title-month"), monthName(month.since, zone));
  const has = month.samples > 0;
  const forecast = month.expected
    ? `about ${bytes(month.expected.total_bytes)} in all by ${lastDay(month.until, zone)}`
    : has ? "a forecast comes after a day" : "no data yet";
  figure("month", bytes(has ? month.rx_bytes : null), bytes(has ? month.tx_bytes : null), forecast);
  const rates = month.percentile?.of_samples;
  const note = rates ? `of this month's 5-minute rates; both\u00a0${rate(rates.sum_bps, units)}` : "no data yet";
  figure("percentile", rate(rates?.rx_bps, units), rate(rates?.tx_bps, units), note);
}

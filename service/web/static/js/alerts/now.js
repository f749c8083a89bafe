// The alerts that fire or pend now.

import { make } from "../shared/dom.js";
import { duration, moment } from "../shared/format.js";
import { BADGES, reasonWords, valueWords } from "../shared/alert-words.js";

/** @import { Units } from "../shared/choices.js" */
/** @import { Rule } from "../shared/alert-words.js" */

const RANK = { critical: 0, warning: 1, info: 2 };

/**
 * The table of them, the worst first.
 * @param {Api.Alert[]} alerts
 * @param {{ rules: Map<string, Rule>, units: Units, now: number, onAcknowledge: (alert: Api.Alert) => void }} options
 */
export function alertTable(alerts, { rules, units, now, onAcknowledge }) {
  const sorted = [...alerts].sort((one, other) => rank(one) - rank(other) || since(other) - since(one));
  return make(
    "table", { class: "alerts" },
    make("caption", { class: "unseen" }, "Alerts that fire or pend, the worst first"),
    make("thead", {}, make(
      "tr", {},
      ...["State", "Server", "About", "Rule", "Value", "Since"].map((name) => make("th", { scope: "col" }, name)),
      make("th", { scope: "col" }, make("span", { class: "unseen" }, "Acknowledge")),
    )),
    make("tbody", {}, ...sorted.map((alert) => make(
      "tr", { class: alert.state },
      make("td", {}, badge(alert)),
      make("th", { scope: "row" }, make("a", { href: `/servers/${encodeURIComponent(alert.server_id)}` }, alert.server_id)),
      make("td", { class: "about" }, make("span", {}, alert.subject), make("span", { class: "muted reason" }, notes(alert))),
      make("td", { class: "rule" }, alert.rule),
      make("td", { class: "number" }, valueWords(rules.get(alert.rule), alert.value, units)),
      make("td", { title: moment(alert.since) }, alert.since ? duration((now - since(alert)) / 1000) : ""),
      make("td", { class: "number" }, acknowledging(alert, onAcknowledge)),
    ))),
  );
}

/** @param {Api.Alert} alert */
function badge(alert) {
  if (alert.state === "pending") return make("span", { class: "badge info" }, "pending");
  return make("span", { class: `badge ${BADGES[alert.severity ?? "info"]}` }, alert.severity ?? "firing");
}

/** @param {Api.Alert} alert */
function notes(alert) {
  return [
    alert.reason === "silent" ? "" : reasonWords(alert.reason), alert.held ? "no data: held as it was" : "",
    alert.is_muted ? "muted" : "", alert.cleared_at ? `clear since ${moment(alert.cleared_at)}` : "",
  ].filter(Boolean).join(" · ");
}

/**
 * @param {Api.Alert} alert
 * @param {(alert: Api.Alert) => void} onAcknowledge
 */
function acknowledging(alert, onAcknowledge) {
  if (alert.acknowledged_at) {
    return make("span", { class: "muted", title: moment(alert.acknowledged_at) }, `seen by ${alert.acknowledged_by ?? "somebody"}`);
  }
  if (alert.state !== "firing" || !alert.episode) return null;
  return make("button", { type: "button", onclick: () => onAcknowledge(alert) }, "Acknowledge");
}

/** @param {Api.Alert} alert */
function rank(alert) {
  return (alert.state === "firing" ? 0 : 10) + RANK[alert.severity ?? "info"];
}

/** @param {Api.Alert} alert */
function since(alert) {
  return alert.since ? Date.parse(alert.since) : 0;
}

// What the months came to, and what this one will; the server's quota.

import { put, remove } from "../shared/api.js";
import { attempt } from "../shared/attempt.js";
import { find, make } from "../shared/dom.js";
import { bytes, NOTHING, percent, rate } from "../shared/format.js";
import { pair } from "../shared/pair.js";

/** @import { Units } from "../shared/choices.js" */

const STATES = { ok: "not reached", near: "nearly used up", over: "used up" };
const DIRECTIONS = { sum: "received and sent", in: "received", out: "sent", max: "the greater of received and sent" };
const UNITS = /** @type {const} */ ([["TB", 1e12], ["GB", 1e9]]);

/**
 * Draws the months of a usage by month into the table `table`, the newest first.
 * @param {HTMLTableElement} table
 * @param {Api.Usage} usage
 * @param {Units} units
 */
export function showMonths(table, { months, month, time_zone: zone }, units) {
  const newest = [...months].reverse();
  const most = Math.max(1, ...newest.map((one) => Math.max(one.total_bytes, one.expected?.total_bytes ?? 0)));
  table.hidden = !newest.length;
  table.tBodies[0]?.replaceChildren(...newest.map((one) => {
    const isUnderWay = one.since === month.since;
    const rates = one.percentile?.of_samples;
    return make(
      "tr", {},
      make("th", { scope: "row" }, monthName(one.since, zone), isUnderWay ? make("span", { class: "muted" }, " so far") : null),
      make("td", { class: "number rx-text" }, bytes(one.rx_bytes)),
      make("td", { class: "number tx-text" }, bytes(one.tx_bytes)),
      make("td", { class: "number" }, bytes(one.total_bytes)),
      make("td", { class: "bars" }, bars(one, most)),
      make("td", { class: "number wide" }, ...(rates ? percentiles(rates, units) : [NOTHING])),
    );
  }));
}

/**
 * Received, sent, and of both together: their peaks need not come at the same time, so it is no sum.
 * @param {Api.Rates} rates
 * @param {Units} units
 */
function percentiles(rates, units) {
  const both = make("span", { class: "sum muted" }, `both\u00a0${rate(rates.sum_bps, units)}`);
  return [...pair(rate(rates.rx_bps, units), rate(rates.tx_bps, units)), both];
}

/**
 * @param {Api.Month} one
 * @param {number} most octets, which fill the bar
 */
function bars(one, most) {
  /**
   * @param {string} kind
   * @param {number} octets
   */
  const part = (kind, octets) => {
    const element = make("span", { class: `fill ${kind}` });
    element.style.width = `${(100 * octets) / most}%`;
    return element;
  };
  const rest = one.expected ? Math.max(0, one.expected.total_bytes - one.total_bytes) : 0;
  return make("span", { class: "bar", "aria-hidden": "true" }, part("rx", one.rx_bytes), part("tx", one.tx_bytes), part("expected", rest));
}

/**
 * "November", and of another year "November 2025".
 * @param {string} since
 * @param {string} zone
 */
export function monthName(since, zone) {
  /** @type {Intl.DateTimeFormatOptions} */
  const options = { month: "long", timeZone: zone };
  /** @param {Date} date */
  const year = (date) => date.toLocaleDateString("en", { year: "numeric", timeZone: zone });
  const date = new Date(Date.parse(since) + 43_200_000); // noon of its first day
  return date.toLocaleDateString([], year(date) === year(new Date()) ? options : { ...options, year: "numeric" });
}

/**
 * The last day of a range, as "30 Nov".
 * @param {string} until
 * @param {string} [zone]
 */
export function lastDay(until, zone) {
  return new Date(Date.parse(until) - 43_200_000).toLocaleDateString([], { day: "numeric", month: "short", timeZone: zone });
}

/** @param {Api.QuotaState} quota */
function quotaWords(quota) {
  const end = lastDay(quota.until, quota.time_zone);
  const share = quota.expected_bytes == null ? null : (100 * quota.expected_bytes) / quota.bytes;
  return {
    used: `${bytes(quota.used_bytes)} of ${bytes(quota.bytes)}`,
    state: `${percent(quota.used_percent)} used, ${STATES[quota.state]}`,
    forecast: share == null ? `ends ${end}` : `about ${percent(share)} by ${end}`,
    counts: `Counts traffic ${DIRECTIONS[quota.direction ?? "sum"]}${quota.interface ? ` by ${quota.interface}` : ""}, ` +
      `from day ${quota.billing_day} of the month on, in ${quota.time_zone}.`,
  };
}

/**
 * Draws a quota, where there is one, into `element`.
 * @param {HTMLElement} element
 * @param {Api.QuotaState | null} quota
 */
export function showQuota(element, quota) {
  element.hidden = !quota;
  if (!quota) return;
  const words = quotaWords(quota);
  const fill = make("span", { class: `fill ${quota.state}` });
  fill.style.width = `${Math.min(100, quota.used_percent)}%`;
  const badge = { ok: "ok", near: "warn", over: "bad" }[quota.state];
  element.replaceChildren(
    make("strong", {}, `Quota: ${words.used}`), make("span", { class: `badge ${badge}` }, words.state),
    make("span", { class: "muted" }, words.forecast), make("span", { class: "bar" }, fill),
    make("span", { class: "muted sizes" }, words.counts),
  );
}

/** The form that sets and removes a quota. */
export class QuotaForm {
  /**
   * @param {HTMLFormElement} form
   * @param {HTMLElement} problem where a failure is said
   * @param {{ server: string, zone: string, onSaved: () => void }} options
   */
  constructor(form, problem, { server, zone, onSaved }) {
    this.form = form;
    this.problem = problem;
    this.zone = zone;
    this.onSaved = onSaved;
    this.amount = find(form, "[name=amount]", HTMLInputElement);
    this.unit = find(form, "[name=unit]", HTMLSelectElement);
    this.direction = find(form, "[name=direction]", HTMLSelectElement);
    this.day = find(form, "[name=day]", HTMLInputElement);
    this.remove = find(form, "[name=remove]", HTMLButtonElement);
    /** @type {Api.QuotaState | null} */
    this.quota = null;
    this.shown = ""; // what the fields were filled with
    const path = { server_id: server };
    form.addEventListener("submit", (event) => {
      event.preventDefault();
      this.send(() => put("/api/v1/servers/{server_id}/quota", { path, body: this.read() }));
    });
    this.remove.addEventListener("click", () => this.send(() => remove("/api/v1/servers/{server_id}/quota", { path })));
  }

  /**
   * Fills in what is set, unless the reader is filling it in.
   * @param {Api.QuotaState | null} quota
   */
  show(quota) {
    this.remove.hidden = !quota;
    const shown = JSON.stringify(quota);
    if (this.form.contains(document.activeElement) || this.shown === shown) return;
    this.shown = shown;
    this.quota = quota;
    const [unit, size] = UNITS.find(([, one]) => (quota?.bytes ?? 1e12) >= one) ?? UNITS[1];
    this.amount.value = quota ? String(quota.bytes / size) : "";
    this.unit.value = unit;
    this.direction.value = quota?.direction ?? "sum";
    this.day.value = String(quota?.billing_day ?? 1);
  }

  /** The quota that the fields say; what they do not have stays as it is set, or is the service's default. */
  read() {
    const [, size] = UNITS.find(([unit]) => unit === this.unit.value) ?? UNITS[0];
    const { time_zone: zone = this.zone, interface: name = null, near_percent: near } = this.quota ?? {};
    return {
      bytes: Math.round(Number(this.amount.value) * size),
      direction: /** @type {Api.Quota["direction"]} */ (this.direction.value),
      billing_day: Number(this.day.value), time_zone: zone, interface: name,
      ...(near === undefined ? {} : { near_percent: near }),
    };
  }

  /** @param {() => Promise<unknown>} request */
  async send(request) {
    if (!await attempt(this.problem, request)) return;
    this.shown = "";
    if (document.activeElement instanceof HTMLElement) document.activeElement.blur();
    this.onSaved();
  }
}

// What the months came to, and what this one will; the server's quota.

import { ApiError, put, remove } from "./api.js";
import { make, setText } from "./dom.js";
import { pair } from "./pair.js";
import { bytes, NOTHING, percent, rate } from "./format.js";

const STATES = { ok: "within it", near: "nearly used up", over: "used up" };
const DIRECTIONS = { sum: "received and sent", in: "received", out: "sent", max: "the greater of received and sent" };
const PREFIXES = [["TB", 1e12], ["GB", 1e9]];

/** Draws the months of GET /usage/{id}?by=month into the table `table`, the newest first. */
export function showMonths(table, { months, month, time_zone: zone }, units) {
  const newest = [...months].reverse();
  const most = Math.max(1, ...newest.map((one) => Math.max(one.total_bytes, one.expected?.total_bytes ?? 0)));
  table.hidden = !newest.length;
  table.tBodies[0].replaceChildren(...newest.map((one) => {
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

/** Received, sent, and of both together: their peaks need not come at the same time, so it is no sum. */
function percentiles(rates, units) {
  const both = make("span", { class: "sum muted" }, `both\u00a0${rate(rates.sum_bps, units)}`);
  return [...pair(rate(rates.rx_bps, units), rate(rates.tx_bps, units)), both];
}

function bars(one, most) {
  const part = (kind, octets) => {
    const element = make("span", { class: `fill ${kind}` });
    element.style.width = `${(100 * octets) / most}%`;
    return element;
  };
  const rest = one.expected ? Math.max(0, one.expected.total_bytes - one.total_bytes) : 0;
  return make("span", { class: "bar", "aria-hidden": "true" }, part("rx", one.rx_bytes), part("tx", one.tx_bytes), part("expected", rest));
}

/** "November", and of another year "November 2025". */
export function monthName(since, zone) {
  const options = { month: "long", timeZone: zone };
  const year = (date) => date.toLocaleDateString("en", { year: "numeric", timeZone: zone });
  const date = new Date(Date.parse(since) + 43_200_000); // noon of its first day
  return date.toLocaleDateString([], year(date) === year(new Date()) ? options : { ...options, year: "numeric" });
}

/** The last day of a range, as "30 Nov". */
export function lastDay(until, zone) {
  return new Date(Date.parse(until) - 43_200_000).toLocaleDateString([], { day: "numeric", month: "short", timeZone: zone });
}

function quotaWords(quota) {
  const end = lastDay(quota.until, quota.time_zone);
  const share = quota.expected_bytes == null ? null : (100 * quota.expected_bytes) / quota.bytes;
  return {
    used: `${bytes(quota.used_bytes)} of ${bytes(quota.bytes)}`,
    state: `${percent(quota.used_percent)} used, ${STATES[quota.state]}`,
    forecast: share == null ? `ends ${end}` : `about ${percent(share)} by ${end}`,
    counts: `Counts what is ${DIRECTIONS[quota.direction]}${quota.interface ? ` by ${quota.interface}` : ""}, ` +
      `from day ${quota.billing_day} of the month on, in ${quota.time_zone}.`,
  };
}

/** Draws a quota, where there is one, into `element`. */
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

/** The form that sets and removes a quota; `onSaved()` follows what it did. */
export class QuotaForm {
  constructor(form, problem, { server, zone, onSaved }) {
    Object.assign(this, { form, problem, server, zone, onSaved });
    form.addEventListener("submit", (event) => {
      event.preventDefault();
      this.send(() => put(this.path, this.read()));
    });
    form.elements.remove.addEventListener("click", () => this.send(() => remove(this.path)));
  }

  get path() {
    return `/api/v1/servers/${encodeURIComponent(this.server)}/quota`;
  }

  /** Fills in what is set, unless the reader is at it. */
  show(quota) {
    const { elements } = this.form;
    elements.remove.hidden = !quota;
    if (this.form.contains(document.activeElement) || this.shown === JSON.stringify(quota)) return;
    this.shown = JSON.stringify(quota);
    this.quota = quota;
    const [unit, size] = PREFIXES.find(([, one]) => (quota?.bytes ?? 1e12) >= one) ?? PREFIXES.at(-1);
    elements.amount.value = quota ? String(quota.bytes / size) : "";
    elements.unit.value = unit;
    elements.direction.value = quota?.direction ?? "sum";
    elements.day.value = String(quota?.billing_day ?? 1);
  }

  read() {
    const { amount, unit, direction, day } = this.form.elements;
    const size = new Map(PREFIXES).get(unit.value);
    const kept = this.quota ?? {};
    return {
      bytes: Math.round(Number(amount.value) * size), direction: direction.value, billing_day: Number(day.value),
      time_zone: kept.time_zone ?? this.zone, interface: kept.interface ?? null, near_percent: kept.near_percent ?? 80,
    };
  }

  async send(request) {
    setText(this.problem, "");
    try {
      await request();
      this.shown = null;
      document.activeElement.blur();
      this.onSaved();
    } catch (error) {
      if (!(error instanceof ApiError)) throw error;
      setText(this.problem, error.status === 403 ? "You are signed in with a token that may only read." : `${error.message}.`);
    }
  }
}

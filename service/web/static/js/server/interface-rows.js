// The rows of a server's interfaces, as data: every interface of its newest heartbeat, those that have gone since, and one
// for each kind of those that are counted together: short-lived ones, and the youngest where there are very many.

import { count, NOTHING, roundRate } from "../shared/format.js";

/** @typedef {{ rx: (number | null)[], tx: (number | null)[] }} Rates */
/** @typedef {{ rx_bytes: number, tx_bytes: number }} Octets */
/** @typedef {Map<string, Octets>} Sums by interface */

/**
 * @typedef {object} Row
 * @property {string} name
 * @property {string} detail
 * @property {boolean} isUp
 * @property {boolean} isGone
 * @property {string} state
 * @property {number | null} rx in bits per second
 * @property {number | null} tx
 * @property {number} errors since boot
 * @property {number} drops
 * @property {string} trouble both in words
 * @property {boolean} isPrimary
 * @property {number} rank among the others; the highest stands first
 * @property {Api.InterfaceState[]} members of a row for several
 * @property {Rates | null} series null: not known yet, like the next
 * @property {Octets | null} today
 * @property {Octets | null} month
 * @property {string} words to search in
 */

/** @typedef {Omit<Row, "series" | "today" | "month" | "words">} Described */

export const natural = new Intl.Collator("en", { numeric: true }).compare;

/**
 * @param {Api.Server} server
 * @param {Map<string, Rates> | null} series by interface; null: not known yet, like the next
 * @param {Sums | null} today
 * @param {Sums | null} month
 * @returns {Row[]}
 */
export function rowsOf(server, series, today, month) {
  const byKind = Map.groupBy(server.network_interfaces, (one) => one.folded_into);
  const rows = (byKind.get(null) ?? []).map((one) => rowOf(one, server.primary_interface));
  for (const [name, members] of byKind) if (name !== null) rows.push(rowOfMany(name, members));
  const known = new Set(rows.map((row) => row.name));
  for (const name of series?.keys() ?? []) if (!known.has(name)) rows.push(gone(name));
  return rows.map((row) => ({
    ...row,
    series: series?.get(row.name) ?? null,
    today: today && (today.get(row.name) ?? { rx_bytes: 0, tx_bytes: 0 }),
    month: month && (month.get(row.name) ?? { rx_bytes: 0, tx_bytes: 0 }),
    words: `${row.name} ${row.detail} ${row.state}`.toLowerCase(),
  }));
}

/**
 * @param {Api.InterfaceState} one
 * @param {string | null} primary
 * @returns {Described}
 */
function rowOf(one, primary) {
  const detail = [
    one.display_name ? `“${one.display_name}”` : null,
    one.kind,
    one.os_name && one.os_name !== one.name ? `now called ${one.os_name}` : null,
    one.stacked_on?.length ? `on ${one.stacked_on.join(", ")}` : null,
    one.speed_mbps ? roundRate(one.speed_mbps * 1e6) : null,
  ];
  const errors = (one.rx_errors ?? 0) + (one.tx_errors ?? 0);
  const drops = (one.rx_dropped ?? 0) + (one.tx_dropped ?? 0);
  const isTold = [one.rx_errors, one.tx_errors, one.rx_dropped, one.tx_dropped].some((value) => value != null);
  // The kernel's word says more where it is neither of the two.
  const state = one.operstate && !["up", "down", "unknown"].includes(one.operstate) ? `, ${one.operstate}` : "";
  const isPrimary = one.name === primary;
  return {
    name: one.name, detail: detail.filter(Boolean).join(" · "), isUp: one.is_up, isGone: false,
    state: `${one.is_up ? "up" : "down"}${state}`, rx: one.rx_bps, tx: one.tx_bps, errors, drops,
    trouble: isTold ? (errors + drops ? `${count(errors)} / ${count(drops)}` : "0") : NOTHING,
    isPrimary, rank: Number(isPrimary) * 4 + Number(one.is_lowest) * 2 + Number(one.is_up), members: [],
  };
}

/**
 * @param {string} name
 * @param {Api.InterfaceState[]} members
 * @returns {Described}
 */
function rowOfMany(name, members) {
  /** @param {"rx_bps" | "tx_bps"} field */
  const sum = (field) => members.reduce((whole, one) => whole + (one[field] ?? 0), 0);
  const up = members.filter((one) => one.is_up).length;
  return {
    name, detail: "counted together", isUp: up > 0, isGone: false, state: `${up} up`,
    rx: sum("rx_bps"), tx: sum("tx_bps"), errors: 0, drops: 0, trouble: NOTHING, isPrimary: false, rank: -1,
    members: members.sort((one, other) => natural(one.name, other.name)),
  };
}

/**
 * @param {string} name
 * @returns {Described}
 */
function gone(name) {
  return {
    name, detail: name.endsWith("/*") ? "counted together" : "", isUp: false, isGone: true, state: "gone",
    rx: null, tx: null, errors: 0, drops: 0, trouble: NOTHING, isPrimary: false, rank: -2, members: [],
  };
}

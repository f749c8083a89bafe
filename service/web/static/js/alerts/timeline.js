// Episodes of alerts as bars on one axis of time: a row for each rule and subject.

import { make } from "../shared/dom.js";
import { age, duration, moment } from "../shared/format.js";
import { BADGES, reasonWords, subjectWords } from "../shared/alert-words.js";

/** @import { Episode } from "../shared/episodes.js" */
/** @typedef {{ since: number, until: number }} Range in ms since 1970 */

const TICKS = 5;
const MOST_ROWS = 100;

/**
 * The table of bars. Rows with the newest episode come first.
 * @param {Episode[]} episodes
 * @param {Range} range
 * @param {{ caption: string, withRule: boolean }} options
 */
export function timeline(episodes, range, { caption, withRule }) {
  const rows = [...Map.groupBy(episodes, (one) => JSON.stringify([one.rule, one.server_id, one.subject])).values()]
    .sort((one, other) => newest(other) - newest(one));
  return make(
    "table", { class: "timeline" },
    make("caption", { class: "unseen" }, caption),
    make("thead", {}, make(
      "tr", {},
      withRule ? make("th", { scope: "col" }, "Rule") : null,
      make("th", { scope: "col" }, "Server"),
      make("th", { scope: "col", class: "track" }, axis(range)),
      make("th", { scope: "col", class: "number" }, "Alerts"),
      make("th", { scope: "col", class: "number wide" }, "In all"),
    )),
    make("tbody", {}, ...rows.slice(0, MOST_ROWS).map((of) => row(of, range, withRule))),
    rows.length > MOST_ROWS ? make("tfoot", {}, make("tr", {}, make("td", { colspan: "5", class: "muted" }, `${rows.length - MOST_ROWS} more`))) : null,
  );
}

/**
 * @param {Episode[]} of one rule and subject
 * @param {Range} range
 * @param {boolean} withRule
 */
function row(of, range, withRule) {
  const [first] = of;
  if (!first) return null;
  const total = of.reduce((sum, one) => sum + (one.until ?? range.until) - one.since, 0);
  return make(
    "tr", {},
    withRule ? make("td", { class: "rule" }, first.rule) : null,
    make("th", { scope: "row" }, make("a", { href: `/servers/${encodeURIComponent(first.server_id)}` }, subjectWords(first))),
    make("td", { class: "track" }, make("div", { class: "bars" }, ...of.map((one) => bar(one, range)))),
    make("td", { class: "number" }, String(of.length)),
    make("td", { class: "number wide" }, duration(total / 1000)),
  );
}

/**
 * @param {Episode} one
 * @param {Range} range
 */
function bar(one, { since, until }) {
  const from = Math.max(one.since, since);
  const to = Math.min(one.until ?? until, until);
  const words = [
    `${moment(one.since)}, ${one.until === null ? "goes on" : `for ${duration((one.until - one.since) / 1000)}`}`,
    one.isLate ? "found in replayed data" : "", reasonWords(one.reason),
  ].filter(Boolean).join(" · ");
  const element = make(
    "span", { class: `episode ${BADGES[one.severity]}${one.isLate ? " late" : ""}`, title: words }, make("span", { class: "unseen" }, words),
  );
  element.style.left = `min(${(100 * (from - since)) / (until - since)}%, 100% - 3px)`;
  element.style.width = `${Math.max(0, (100 * (to - from)) / (until - since))}%`;
  return element;
}

/** @param {Range} range */
function axis({ since, until }) {
  const ticks = Array.from({ length: TICKS }, (_, index) => since + ((until - since) * index) / (TICKS - 1));
  const isLong = until - since > 2 * 86_400_000;
  /** @type {Intl.DateTimeFormatOptions} */
  const options = isLong ? { day: "numeric", month: "short" } : { hour: "2-digit", minute: "2-digit" };
  return make(
    "div", { class: "axis" },
    ...ticks.map((at, index) => make("span", {}, index === TICKS - 1 && Math.abs(until - Date.now()) < 60_000 ? age(until, until)
      : new Date(at)[isLong ? "toLocaleDateString" : "toLocaleTimeString"]([], options))),
  );
}

/** @param {Episode[]} of */
function newest(of) {
  return Math.max(...of.map((one) => one.until ?? Infinity));
}

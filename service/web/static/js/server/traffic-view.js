// The panel of the chart: the chart itself, and the same in words and as a table.

import { choice } from "../shared/choices.js";
import { byId, byIdAs, find, make, setText } from "../shared/dom.js";
import { bytes, clock, count, duration, moment, NOTHING, rate, roundRate } from "../shared/format.js";
import { Chart } from "./chart.js";
import { gaps, summary } from "./traffic.js";

/** @import { Episode } from "../shared/episodes.js" */
/** @import { Event, Series, Span } from "./traffic.js" */
/** @typedef {{ at: number, kind: string, words: string }} Note a gap or an event, `at` in seconds since 1970 */

const MOST_NOTES = 6;

/** @type {Record<string, (event: Event) => string>} */
const EVENT_WORDS = {
  reboot: (event) => `Reboot: the counters of ${names(event.interfaces)} restarted${lost(event)}.`,
  reset: (event) => `The counters of ${names(event.interfaces)} restarted without a reboot${lost(event)}.`,
  rejected: (event) => `${names(event.interfaces)} had an implausible gain: not counted.`,
  glitch: (event) => `${names(event.interfaces)} had a wrong reading, corrected by later ones: no traffic is missing.`,
};

export class TrafficView {
  /** @param {import("./chart.js").Callbacks["onZoom"]} onZoom */
  constructor(onZoom) {
    /** @type {Series | null} */
    this.traffic = null;
    /** @type {Span[]} */
    this.missing = []; // gaps
    /** @type {Note[]} */
    this.notes = [];
    /** @type {string | null} */
    this.name = null;
    this.chart = new Chart(byId("chart"), {
      describe: (index) => this.describe(index), rate: (bps) => roundRate(bps, choice("units")), onZoom,
    });
    byId("numbers").addEventListener("toggle", () => this.showNumbers());
  }

  /**
   * Shows the series of interface `name` (null: all), and its events. Heartbeats come every `interval` seconds, and did
   * from `known` on: before, nothing can be missing.
   * @param {string | null} name
   * @param {Series} traffic
   * @param {{ events: Event[], episodes: Episode[] }} happened
   * @param {{ interval: number, known: number }} timing
   */
  show(name, traffic, { events, episodes }, { interval, known }) {
    const missing = gaps(traffic, interval);
    const alerts = bandsOf(name, traffic, episodes);
    this.missing = missing;
    this.traffic = traffic;
    this.name = name;
    this.notes = [
      ...events.map((event) => ({ at: event.at, kind: event.kind, words: EVENT_WORDS[event.kind]?.(event) ?? event.kind })),
      ...alerts.map((one) => ({ at: one.since, kind: "alert", words: one.words })),
      ...missing.filter(({ until }) => until > known + traffic.width).map(({ since, until }) => ({
        at: since, kind: "gap",
        words: `No data from ${moment(since * 1000)} to ${moment(until * 1000)}, ${duration(until - since)}.`,
      })),
    ].sort((one, other) => one.at - other.at);
    const isEmpty = traffic.rx.every((bps) => bps == null);
    byId("empty").hidden = !isEmpty;
    byId("chart").hidden = isEmpty;
    if (!isEmpty) this.chart.show(traffic, { gaps: missing, events, bands: alerts }, choice("units") === "bytes" ? 8 : 1);
    this.showSummary();
    this.showNotes(isEmpty);
    this.showNumbers();
  }

  /** @param {number} index */
  describe(index) {
    const { starts, width, rx, tx, rxBytes, txBytes, since } = this.shown();
    const units = choice("units");
    const start = starts[index] ?? since;
    /**
     * @param {number | null | undefined} bps
     * @param {number | null | undefined} octets
     */
    const exact = (bps, octets) => (bps == null ? NOTHING : `${rate(bps, units)}, ${count(octets)}\u00a0B`);
    return {
      time: span(start, width), rx: exact(rx[index], rxBytes[index]), tx: exact(tx[index], txBytes[index]),
      notes: this.notesOf(start),
    };
  }

  shown() {
    if (!this.traffic) throw new Error("nothing is shown yet");
    return this.traffic;
  }

  /** @param {number} start of a bucket */
  notesOf(start) {
    const { width, since } = this.shown();
    const found = this.notes.filter((note) => note.kind !== "gap" && note.at >= start && note.at < start + width);
    const words = found.map((note) => note.words);
    if (this.missing.some((gap) => start >= gap.since && start < gap.until)) words.unshift("no data");
    // Before the first that there is, nothing was counted.
    if (this.missing.some((gap) => gap.until === start && gap.since > since)) words.unshift("all traffic of the gap, at its mean rate");
    return words;
  }

  showSummary() {
    const units = choice("units");
    const traffic = this.shown();
    const { rxBytes, txBytes, rxPeak, txPeak } = summary(traffic);
    /** @param {{ bps: number, start: number } | null} found */
    const peak = (found) => (found ? `, at most ${rate(found.bps, units)} at ${span(found.start, traffic.width)}` : "");
    byId("summary").replaceChildren(
      make("span", { class: "rx-text" }, `↓ ${bytes(rxBytes)} received${peak(rxPeak)}`), " ",
      make("span", { class: "tx-text" }, `↑ ${bytes(txBytes)} sent${peak(txPeak)}`),
    );
    byId("summary").hidden = !rxPeak;
    const counted = traffic.counted ?? [];
    const words = counted.length > 1 ? `sum of ${names(counted)}, each byte once` : counted.length ? `of ${counted[0]}` : "";
    setText(byId("counted"), words);
  }

  /** @param {boolean} isEmpty */
  showNotes(isEmpty) {
    const shown = isEmpty ? [] : this.notes.slice(-MOST_NOTES);
    const rest = isEmpty ? 0 : this.notes.length - shown.length;
    byId("events").replaceChildren(
      ...(rest ? [make("li", { class: "muted" }, `${rest} more before; the table has them all.`)] : []),
      ...shown.map((note) =>
        make("li", { class: note.kind }, note.kind === "gap" ? note.words : `${moment(note.at * 1000)}: ${note.words}`)),
    );
  }

  /** The numbers of the chart, made when the reader opens them. */
  showNumbers() {
    const details = byIdAs("numbers", HTMLDetailsElement);
    if (!details.open || !this.traffic) return;
    const { starts, width, rx, tx, rxBytes, txBytes } = this.traffic;
    const units = choice("units");
    setText(byId("numbers-caption"), `Traffic of ${this.name ?? "all interfaces"}, in buckets of ${duration(width)}, newest first`);
    /** @param {string} text */
    const number = (text) => make("td", { class: "number" }, text);
    const rows = starts.map((start, index) => make(
      "tr", {},
      make("th", { scope: "row" }, width >= 86_400 ? day(start) : moment(start * 1000)),
      number(rate(rx[index], units)), number(rate(tx[index], units)),
      number(count(rxBytes[index])), number(count(txBytes[index])),
      make("td", {}, this.notesOf(start).join(" ")),
    ));
    find(details, "tbody", HTMLTableSectionElement).replaceChildren(...rows.reverse());
  }
}

/**
 * The alerts of the server and of interface `name` (null: of all) that reach into the range of the series.
 * @param {string | null} name
 * @param {Series} traffic
 * @param {Episode[]} episodes
 */
function bandsOf(name, traffic, episodes) {
  return episodes
    .filter((one) => name === null || one.subject === name || one.subject === "")
    .map((one) => {
      const since = one.since / 1000;
      const until = one.until === null ? traffic.until : one.until / 1000;
      const about = one.subject ? `${one.rule}, ${one.subject}` : one.rule;
      const lasted = one.until === null ? "goes on" : `for ${duration(until - since)}`;
      return { since, until, severity: one.severity, words: `Alert (${about}): ${lasted}.` };
    })
    .filter(({ since, until }) => since < traffic.until && until > traffic.since);
}

/**
 * The time of a bucket.
 * @param {number} start
 * @param {number} width
 */
function span(start, width) {
  return width >= 86_400 ? day(start) : `${moment(start * 1000)} – ${clock((start + width) * 1000)}`;
}

/**
 * A bucket of a day is one of UTC, whatever the reader's zone.
 * @param {number} start
 */
function day(start) {
  return `${new Date(start * 1000).toLocaleDateString([], { weekday: "short", day: "numeric", month: "short", timeZone: "UTC" })} (UTC)`;
}

/** @param {string[]} interfaces */
function names(interfaces) {
  const { length } = interfaces;
  return length > 3 ? `${interfaces.slice(0, 2).join(", ")} and ${length - 2} more` : interfaces.join(", ");
}

/** @param {Event} event */
function lost({ elapsed_seconds: elapsed }) {
  return elapsed ? `; the traffic before it, for up to ${duration(elapsed)}, is unknown` : "";
}

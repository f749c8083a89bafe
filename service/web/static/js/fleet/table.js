// The table of the fleet: which rows stand in it, and in which order.
//
// All rows are there, as rows of a real table, and only those in view have their sparklines fetched and drawn. Rows that
// come and go with the scrolling would be fewer, but a screen reader could not count them, and the browser's own search
// not find them. 500 of them are made in a quarter of a second, after the first screen; past that, a button makes 500
// more.

import { now } from "../shared/clock.js";
import { byId, setText } from "../shared/dom.js";
import { count } from "../shared/format.js";
import { standing } from "../shared/standing.js";
import { addMachine } from "./add-machine.js";
import { settings } from "./address.js";
import { mainInterface } from "./row.js";

/** @import { Row } from "./row.js" */

export const PAGE = 500;
const AT_FIRST = 30;
const AT_FIRST_MS = 150;
const SORT_MS = 5_000;

/** @type {Record<import("./address.js").Sort, (row: Row) => number | string>} */
const KEYS = {
  status: (row) => standing(row.server, now()).rank,
  server: (row) => row.server.display_name ?? row.server.id,
  interface: (row) => mainInterface(row.server)?.name ?? "",
  now: (row) => row.rateOf(mainInterface(row.server)) ?? -1,
  peak: (row) => row.peakOf(mainInterface(row.server)) ?? -1,
  errors: (row) => row.errorCount(),
};

/** Names as people count: eth9 before eth10. */
const collator = new Intl.Collator(undefined, { numeric: true });

export class FleetTable {
  /**
   * @param {Map<string, Row>} rows by server
   * @param {(element: Element) => void} onPlaced called with the element of each row that is in the table
   * @param {{ show: (rows: Iterable<Row>, matching: Row[]) => void }} groups
   */
  constructor(rows, onPlaced, groups) {
    this.rows = rows;
    this.groups = groups;
    this.onPlaced = onPlaced;
    this.body = byId("servers");
    /** @type {Row[]} */
    this.shown = []; // those that match, in order
    this.sortedAt = 0; // by performance.now()
    this.limit = PAGE;
    this.isLoaded = false;
    /** @type {ReturnType<typeof setTimeout> | null} */
    this.placing = null;
  }

  /** Puts the rows that the reader asks for into the table, in the reader's order. */
  arrange() {
    if (!this.isLoaded) return; // no rows yet, and not: no servers
    const terms = settings.filter.toLowerCase().split(/\s+/).filter(Boolean);
    this.shown = inOrder([...this.rows.values()].filter((row) => matches(row, terms)));
    this.sortedAt = performance.now();
    this.place();
    const isEmpty = !this.rows.size;
    byId("fleet").hidden = !this.shown.length;
    byId("none").hidden = isEmpty || this.shown.length > 0;
    byId("empty").hidden = !isEmpty;
    document.body.classList.toggle("no-servers", isEmpty);
    if (isEmpty && !byId("empty-add").childElementCount) byId("empty-add").append(addMachine());
    byId("more").hidden = this.shown.length <= this.limit;
    setText(byId("more"), `Show ${count(Math.min(PAGE, this.shown.length - this.limit))} more`);
    this.summarise();
  }

  /** What follows from the time that passes: who is late, and an order that may be another by now. */
  age() {
    for (const row of this.rows.values()) row.showStanding(now());
    this.summarise();
    // Not under a reader's hands.
    const isSteady = settings.sort === "server" || settings.sort === "interface";
    const isOld = performance.now() - this.sortedAt > SORT_MS;
    if (!isSteady && isOld && !this.body.matches(":hover, :focus-within")) this.arrange();
  }

  /** @param {number} limit how many rows there may be */
  limitTo(limit) {
    this.limit = limit;
    this.arrange();
  }

  summarise() {
    const counts = { silent: 0, late: 0, paused: 0, up: 0 };
    for (const row of this.rows.values()) counts[standing(row.server, now()).name] += 1;
    const parts = [`${count(this.rows.size)} ${this.rows.size === 1 ? "server" : "servers"}`];
    for (const name of /** @type {const} */ (["silent", "late", "paused"])) {
      if (counts[name]) parts.push(`${count(counts[name])} ${name}`);
    }
    setText(byId("summary"), this.rows.size ? parts.join(" · ") : "");
    this.groups.show(this.rows.values(), this.shown);
    setText(byId("found"), settings.filter ? `${count(this.shown.length)} of ${count(this.rows.size)}` : "");
  }

  /** Puts the rows into the table; of many, at first those that a screen has room for. */
  place() {
    const chosen = this.shown.slice(0, this.limit);
    const isFirst = (!this.body.childElementCount || this.placing !== null) && chosen.length > AT_FIRST;
    if (isFirst) {
      this.placing ??= setTimeout(() => {
        this.placing = null;
        this.place();
      }, AT_FIRST_MS);
    }
    const placed = isFirst ? chosen.slice(0, AT_FIRST) : chosen;
    const elements = placed.map((row) => row.element);
    const current = this.body.children;
    if (elements.length === current.length && elements.every((element, index) => element === current[index])) return;
    const focused = document.activeElement;
    this.body.replaceChildren(...elements);
    // An element that moves loses the focus.
    if (focused instanceof HTMLElement && focused !== document.activeElement && this.body.contains(focused)) {
      focused.focus({ preventScroll: true });
    }
    for (const row of placed) {
      row.showStanding(now());
      this.onPlaced(row.element);
    }
  }
}

/** @param {Row[]} chosen */
function inOrder(chosen) {
  const key = KEYS[settings.sort];
  const sign = settings.descending ? -1 : 1;
  return chosen
    .map((row) => ({ row, key: key(row) }))
    .sort((a, b) => sign * compare(a.key, b.key) || compare(a.row.server.id, b.row.server.id))
    .map(({ row }) => row);
}

/**
 * @param {number | string} a
 * @param {number | string} b
 */
function compare(a, b) {
  return typeof a === "number" && typeof b === "number" ? a - b : collator.compare(String(a), String(b));
}

/**
 * @param {Row} row
 * @param {string[]} terms
 */
function matches(row, terms) {
  if (!terms.length) return true;
  const { server } = row;
  const text = [
    server.id, server.hostname, server.display_name ?? "", ...server.tags, standing(server, now()).name, ...server.interfaces.map((one) => one.name),
    server.interfaces_down ? "down" : "",
  ].join("\n").toLowerCase();
  return terms.every((term) => text.includes(term));
}

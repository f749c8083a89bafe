// The table of a server's interfaces: filtered, sorted, and changed where what it shows has changed.

import { focusBySlash, make, setText } from "../shared/dom.js";
import { bytes, NOTHING, rate } from "../shared/format.js";
import { pair, setPair } from "../shared/pair.js";
import { draw, sparkline } from "../shared/sparkline.js";
import { natural, rowsOf } from "./interface-rows.js";

/** @import { Units } from "../shared/choices.js" */
/** @import { Octets, Rates, Row, Sums } from "./interface-rows.js" */

const MOST_ROWS = 100;
const isPhone = matchMedia("(max-width: 30rem)");

// By what a reader may sort; the most first, but for names.
/** @type {Record<string, ((row: Row) => number) | null>} */
const SORTS = {
  name: null,
  now: (row) => (row.rx ?? -1) + (row.tx ?? 0),
  today: (row) => total(row.today),
  month: (row) => total(row.month),
  trouble: (row) => row.errors + row.drops,
};

/**
 * @typedef {object} Elements
 * @property {HTMLTableElement} table
 * @property {HTMLInputElement} filter a search field
 * @property {HTMLInputElement} only a check box: those that are up
 * @property {HTMLElement} shown how many there are, in words
 * @property {HTMLElement} more a button that shows the rest
 */

export class Interfaces {
  /**
   * @param {Elements} elements
   * @param {{ onChoose: (name: string) => void, href: (name: string) => string }} callbacks
   */
  constructor({ table, filter, only, shown, more }, { onChoose, href }) {
    this.filter = filter;
    this.only = only;
    this.shown = shown;
    this.more = more;
    this.onChoose = onChoose;
    this.href = href;
    this.table = table;
    this.body = table.tBodies[0] ?? table.createTBody();
    this.headings = [...table.querySelectorAll("thead th")];
    /** @type {Map<string, Parts>} */
    this.parts = new Map();
    /** @type {Row[]} */
    this.data = [];
    /** @type {Units} */
    this.units = "bits";
    /** @type {string | null} */
    this.chosen = null;
    this.sort = "name";
    this.isTurned = false;
    /** @type {Set<string>} */
    this.open = new Set();
    this.isWhole = false;
    for (const input of [filter, only]) input.addEventListener("input", () => this.place());
    focusBySlash(filter);
    isPhone.addEventListener("change", () => this.place());
    more.addEventListener("click", () => {
      this.isWhole = true;
      this.place();
    });
    for (const button of table.querySelectorAll("thead button")) {
      button.addEventListener("click", () => {
        const by = button.getAttribute("data-sort") ?? "name";
        this.isTurned = this.sort === by && !this.isTurned;
        this.sort = by;
        this.place();
      });
    }
  }

  /**
   * Shows what is known by now; what is not there yet is null.
   * @param {object} known
   * @param {Api.Server} known.server
   * @param {Map<string, Rates> | null} known.series
   * @param {Sums | null} known.today
   * @param {Sums | null} known.month
   * @param {Units} known.units
   * @param {string | null} known.chosen
   */
  update({ server, series, today, month, units, chosen }) {
    this.units = units;
    this.chosen = chosen;
    this.data = rowsOf(server, series, today, month);
    this.place();
  }

  /** Brings what is filtered and sorted into the table, and fills in what changed. */
  place() {
    const words = this.words;
    const found = this.data.filter((row) => (!this.only.checked || row.isUp)
      && (row.words.includes(words) || row.members.some((one) => one.name.toLowerCase().includes(words))));
    const value = SORTS[this.sort] ?? null;
    found.sort((one, other) => (value ? value(other) - value(one) : other.rank - one.rank) || natural(one.name, other.name));
    if (this.isTurned) found.reverse();
    const shown = this.isWhole ? found : found.slice(0, MOST_ROWS);
    const elements = shown.flatMap((row) => [this.element(row), ...this.members(row)]);
    if (elements.length !== this.body.children.length || elements.some((row, at) => row !== this.body.children[at])) {
      this.body.replaceChildren(...elements);
    }
    for (const heading of this.headings) {
      const by = heading.querySelector("button")?.getAttribute("data-sort");
      if (by === this.sort) heading.setAttribute("aria-sort", (by === "name") === this.isTurned ? "descending" : "ascending");
      else heading.removeAttribute("aria-sort");
    }
    this.more.hidden = shown.length === found.length;
    setText(this.more, `Show all ${found.length}`);
    setText(this.shown, shownWords(found.length, this.data.length));
    this.table.hidden = !found.length;
  }

  get words() {
    return this.filter.value.trim().toLowerCase();
  }

  /** @param {Row} row */
  element(row) {
    let known = this.parts.get(row.name);
    if (!known) {
      known = this.make(row);
      this.parts.set(row.name, known);
    }
    fill(known, row, this.units);
    // There it stands below the name: a column more has no room.
    const place = isPhone.matches ? known.heading : known.pictureCell;
    if (known.picture.parentNode !== place) place.append(known.picture);
    known.link.href = this.href(row.name);
    if (row.name === this.chosen) known.link.setAttribute("aria-current", "true");
    else known.link.removeAttribute("aria-current");
    known.element.classList.toggle("chosen", row.name === this.chosen);
    if (known.toggle) known.toggle.setAttribute("aria-expanded", String(this.open.has(row.name)));
    return known.element;
  }

  /**
   * Those that a row is the sum of: all where it is open, and else those that the filter names.
   * @param {Row} row
   */
  members(row) {
    const { words } = this;
    const isOpen = this.open.has(row.name);
    const shown = row.members.filter((one) => isOpen || (words && one.name.toLowerCase().includes(words)));
    return shown.map((one) => {
      const state = make("span", { class: `badge ${one.is_up ? "ok" : "off"}` }, one.is_up ? "up" : "down");
      const now = make("span", { class: "both" }, ...pair(rate(one.rx_bps, this.units), rate(one.tx_bps, this.units)));
      const rest = make("td", { colspan: "3", class: "muted wide" }, `counted in ${row.name}`);
      return make(
        "tr", { class: "member" },
        make("th", { scope: "row" }, one.name), make("td", {}, state), make("td", { class: "number" }, now),
        make("td", { class: "picture" }), rest,
      );
    });
  }

  /** @param {Row} row */
  make(row) {
    const link = make("a", {
      class: "interface",
      onclick: (/** @type {MouseEvent} */ event) => {
        if (event.ctrlKey || event.metaKey || event.shiftKey || event.button) return;
        event.preventDefault();
        this.onChoose(row.name);
      },
    }, row.name);
    const toggle = row.members.length
      ? make("button", {
        type: "button", class: "quiet toggle",
        onclick: () => {
          if (!this.open.delete(row.name)) this.open.add(row.name);
          this.place();
        },
      })
      : null;
    const parts = {
      link, toggle, detail: make("span", { class: "detail muted" }), state: make("span", { class: "badge" }),
      sums: make("span", { class: "sums muted" }), now: both(), today: both(), month: both(),
      trouble: make("span", {}), picture: sparkline(), pictureCell: make("td", { class: "picture" }),
      /** @type {Rates | null} */
      drawn: null,
    };
    const tag = row.isPrimary ? make("span", { class: "tag" }, "primary") : null;
    const heading = make("th", { scope: "row" }, link, tag, parts.detail, toggle, parts.sums);
    const element = make(
      "tr", {},
      heading,
      make("td", {}, parts.state),
      make("td", { class: "number" }, parts.now),
      parts.pictureCell,
      make("td", { class: "number wide" }, parts.today),
      make("td", { class: "number wide" }, parts.month),
      make("td", { class: "number wide" }, parts.trouble),
    );
    return { ...parts, heading, element };
  }
}

/** @typedef {ReturnType<Interfaces["make"]>} Parts the elements of a row */

/** Two amounts above each other. */
function both() {
  return make("span", { class: "both" }, ...pair());
}

/**
 * @param {Parts} parts
 * @param {Row} row
 * @param {Units} units
 */
function fill(parts, row, units) {
  setText(parts.detail, row.detail);
  setText(parts.state, row.state);
  parts.state.className = `badge ${row.isUp ? "ok" : row.isGone ? "gone" : row.isPrimary ? "bad" : "off"}`;
  setPair(parts.now, rate(row.rx, units), rate(row.tx, units));
  setAmounts(parts.today, row.today);
  setAmounts(parts.month, row.month);
  setText(parts.sums, row.month ? `Today ${bytes(total(row.today))}, month ${bytes(total(row.month))}` : "");
  setText(parts.trouble, row.trouble);
  parts.trouble.className = row.errors + row.drops > 0 ? "some" : "muted";
  if (parts.toggle) setText(parts.toggle, `${row.members.length} of them`);
  if (row.series !== parts.drawn) {
    parts.drawn = row.series;
    draw(parts.picture, row.series ?? { rx: [], tx: [] }, sparklineWords(row, units));
  }
}

/**
 * @param {Row} row
 * @param {Units} units
 */
function sparklineWords(row, units) {
  const [rx, tx] = [row.series?.rx ?? [], row.series?.tx ?? []].map((rates) => rates.filter((bps) => bps != null));
  if (!rx?.length || !tx?.length) return `${row.name}: no data`;
  return `${row.name}: at most ${rate(Math.max(...rx), units)} received, ${rate(Math.max(...tx), units)} sent`;
}

/**
 * @param {Element} element
 * @param {Octets | null} sum
 */
function setAmounts(element, sum) {
  setPair(element, sum ? bytes(sum.rx_bytes) : NOTHING, sum ? bytes(sum.tx_bytes) : NOTHING);
}

/** @param {Octets | null} sum */
function total(sum) {
  return sum ? sum.rx_bytes + sum.tx_bytes : -1;
}

/**
 * @param {number} number that match
 * @param {number} all
 */
function shownWords(number, all) {
  if (!all) return "No data: the agent reports no interfaces.";
  if (!number) return "No interface matches the filter.";
  return number === all ? `${number} in all` : `${number} of ${all}`;
}

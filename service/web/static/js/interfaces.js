// The table of a server's interfaces: every one of its newest heartbeat, those that have gone since, and one row for each
// kind of those that are counted together: short-lived ones, and the youngest where there are very many.

import { make, setText } from "./dom.js";
import { bytes, count, duration, NOTHING, rate } from "./format.js";
import { pair, setPair } from "./pair.js";
import { draw, sparkline } from "./sparkline.js";

const MOST_ROWS = 100;
const isPhone = matchMedia("(max-width: 30rem)");
const natural = new Intl.Collator("en", { numeric: true }).compare;

// By what a reader may sort; the most first, but for names.
const SORTS = {
  name: null,
  now: (row) => (row.rx ?? -1) + (row.tx ?? 0),
  today: (row) => total(row.today),
  month: (row) => total(row.month),
  trouble: (row) => row.errors + row.drops,
};

/** The table `table` with its `filter` (a search field), `only` (a check box: those that are up) and the line `shown`. */
export class Interfaces {
  constructor({ table, filter, only, shown, more }, { onChoose, href }) {
    Object.assign(this, { table, filter, only, shown, more, onChoose, href });
    this.body = table.tBodies[0];
    this.rows = new Map();
    this.data = [];
    this.sort = "name";
    this.isTurned = false;
    this.open = new Set();
    this.isWhole = false;
    for (const input of [filter, only]) input.addEventListener("input", () => this.place());
    addEventListener("keydown", (event) => {
      if (event.key !== "/" || event.target.closest("input, select, textarea")) return;
      event.preventDefault();
      filter.focus();
    });
    isPhone.addEventListener("change", () => this.place());
    more.addEventListener("click", () => {
      this.isWhole = true;
      this.place();
    });
    for (const button of table.tHead.querySelectorAll("button")) {
      button.addEventListener("click", () => {
        this.isTurned = this.sort === button.dataset.sort && !this.isTurned;
        this.sort = button.dataset.sort;
        this.place();
      });
    }
  }

  /**
   * Shows what is known by now; what is not there yet is null.
   *
   * server    of GET /servers/{id}
   * series    Map of names to { rx, tx }, one rate a bucket; today, month   Maps of names to { rx_bytes, tx_bytes }
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
    const value = SORTS[this.sort];
    found.sort((one, other) => (value ? value(other) - value(one) : other.rank - one.rank) || natural(one.name, other.name));
    if (this.isTurned) found.reverse();
    const shown = this.isWhole ? found : found.slice(0, MOST_ROWS);
    const elements = shown.flatMap((row) => [this.element(row), ...this.members(row)]);
    if (elements.length !== this.body.children.length || elements.some((row, at) => row !== this.body.children[at])) {
      this.body.replaceChildren(...elements);
    }
    for (const heading of this.table.tHead.rows[0].cells) {
      const by = heading.querySelector("button")?.dataset.sort;
      if (by === this.sort) heading.setAttribute("aria-sort", (by === "name") === this.isTurned ? "descending" : "ascending");
      else heading.removeAttribute("aria-sort");
    }
    this.more.hidden = shown.length === found.length;
    setText(this.more, `Show all ${found.length}`);
    setText(this.shown, tell(found.length, this.data));
    this.table.hidden = !found.length;
  }

  get words() {
    return this.filter.value.trim().toLowerCase();
  }

  element(row) {
    let known = this.rows.get(row.name);
    if (!known) {
      known = this.make(row);
      this.rows.set(row.name, known);
    }
    fill(known, row, this.units);
    // There it stands below the name: a column more has no room.
    const place = isPhone.matches ? known.element.cells[0] : known.element.cells[3];
    if (known.picture.parentNode !== place) place.append(known.picture);
    known.link.href = this.href(row.name);
    if (row.name === this.chosen) known.link.setAttribute("aria-current", "true");
    else known.link.removeAttribute("aria-current");
    known.element.classList.toggle("chosen", row.name === this.chosen);
    if (known.toggle) known.toggle.setAttribute("aria-expanded", String(this.open.has(row.name)));
    return known.element;
  }

  /** Those that a row is the sum of: all where it is open, and else those that are looked for. */
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

  make(row) {
    const link = make("a", {
      class: "interface",
      onclick: (event) => {
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
      trouble: make("span", {}), picture: sparkline(), drawn: null,
    };
    parts.element = make(
      "tr", {},
      make("th", { scope: "row" }, link, row.isPrimary ? make("span", { class: "tag" }, "primary") : null, parts.detail, toggle, parts.sums),
      make("td", {}, parts.state),
      make("td", { class: "number" }, parts.now),
      make("td", { class: "picture" }, parts.picture),
      make("td", { class: "number wide" }, parts.today),
      make("td", { class: "number wide" }, parts.month),
      make("td", { class: "number wide" }, parts.trouble),
    );
    return parts;
  }
}

/** Two amounts above each other. */
function both() {
  return make("span", { class: "both" }, ...pair());
}

function fill(parts, row, units) {
  setText(parts.detail, row.detail);
  setText(parts.state, row.state);
  parts.state.className = `badge ${row.isUp ? "ok" : row.isGone ? "gone" : row.isPrimary ? "bad" : "off"}`;
  setPair(parts.now, rate(row.rx, units), rate(row.tx, units));
  setPair(parts.today, ...amounts(row.today));
  setPair(parts.month, ...amounts(row.month));
  setText(parts.sums, row.month ? `Today ${bytes(total(row.today))}, month ${bytes(total(row.month))}` : "");
  setText(parts.trouble, row.trouble);
  parts.trouble.className = row.errors + row.drops > 0 ? "some" : "muted";
  if (parts.toggle) setText(parts.toggle, `${row.members.length} of them`);
  if (row.series !== parts.drawn) {
    parts.drawn = row.series;
    draw(parts.picture, row.series ?? { rx: [], tx: [], max: 1 }, sparklineWords(row, units));
  }
}

function sparklineWords(row, units) {
  const known = row.series?.rx.filter((bps) => bps != null) ?? [];
  if (!known.length) return `${row.name}: no data`;
  return `${row.name}: at most ${rate(Math.max(...known), units)} received, ${rate(Math.max(...row.series.tx), units)} sent`;
}

function amounts(sum) {
  return sum ? [bytes(sum.rx_bytes), bytes(sum.tx_bytes)] : [NOTHING, NOTHING];
}

function total(sum) {
  return sum ? sum.rx_bytes + sum.tx_bytes : -1;
}

function tell(number, data) {
  if (!data.length) return "No data: its agent reports no interfaces.";
  if (!number) return "None of its interfaces matches.";
  return number === data.length ? `${number} in all` : `${number} of ${data.length}`;
}

// Rows of data

function rowsOf(server, series, today, month) {
  const folded = new Map();
  const rows = [];
  for (const one of server.network_interfaces) {
    if (one.is_folded) {
      const name = seriesOf(one.name);
      folded.set(name, [...(folded.get(name) ?? []), one]);
    } else {
      rows.push(rowOf(one, server.primary_interface));
    }
  }
  for (const [name, members] of folded) rows.push(rowOfMany(name, members));
  const known = new Set(rows.map((row) => row.name));
  for (const name of series?.keys() ?? []) if (!known.has(name)) rows.push(gone(name));
  for (const row of rows) {
    row.series = series?.get(row.name) ?? null;
    row.today = today ? (today.get(row.name) ?? { rx_bytes: 0, tx_bytes: 0 }) : null;
    row.month = month ? (month.get(row.name) ?? { rx_bytes: 0, tx_bytes: 0 }) : null;
    row.words = `${row.name} ${row.detail} ${row.state}`.toLowerCase();
  }
  return rows;
}

function rowOf(one, primary) {
  const detail = [
    one.kind,
    one.stacked_on?.length ? `on ${one.stacked_on.join(", ")}` : null,
    one.speed_mbps > 0 ? rate(one.speed_mbps * 1e6).replace(/(\.\d*?)0+(?=\D)/, "$1").replace(/\.(?=\D)/, "") : null,
  ];
  const errors = (one.rx_errors ?? 0) + (one.tx_errors ?? 0);
  const drops = (one.rx_dropped ?? 0) + (one.tx_dropped ?? 0);
  const isTold = [one.rx_errors, one.tx_errors, one.rx_dropped, one.tx_dropped].some((value) => value != null);
  // The kernel's word says more where it is neither of the two.
  const state = one.operstate && !["up", "down", "unknown"].includes(one.operstate) ? `, ${one.operstate}` : "";
  return {
    name: one.name, detail: detail.filter(Boolean).join(" · "), isUp: one.is_up, isGone: false,
    state: `${one.is_up ? "up" : "down"}${state}`, rx: one.rx_bps, tx: one.tx_bps, errors, drops,
    trouble: isTold ? (errors + drops ? `${count(errors)} / ${count(drops)}` : "0") : NOTHING,
    isPrimary: one.name === primary, rank: (one.name === primary) * 4 + one.is_lowest * 2 + one.is_up, members: [],
  };
}

function rowOfMany(name, members) {
  const sum = (field) => members.reduce((whole, one) => whole + (one[field] ?? 0), 0);
  const up = members.filter((one) => one.is_up).length;
  return {
    name, detail: "counted together", isUp: up > 0, isGone: false, state: `${up} up`,
    rx: sum("rx_bps"), tx: sum("tx_bps"), errors: 0, drops: 0, trouble: NOTHING, isPrimary: false, rank: -1,
    members: members.sort((one, other) => natural(one.name, other.name)),
  };
}

function gone(name) {
  return {
    name, detail: name.endsWith("/*") ? "counted together" : "", isUp: false, isGone: true, state: "gone",
    rx: null, tx: null, errors: 0, drops: 0, trouble: NOTHING, isPrimary: false, rank: -2, members: [],
  };
}

/** The series that a short-lived interface is counted in, as sql/function/fold_interfaces.sql names it. */
function seriesOf(name) {
  return `${name.match(/^(veth|cali|lxc(?!br)|tap|vnet|fwbr|fwln|fwpr|ve-|vb-)/)?.[0] ?? "other"}/*`;
}

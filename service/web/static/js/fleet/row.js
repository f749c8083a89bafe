// One server's row in the fleet: made once, then changed where what it shows has changed.

import { choice } from "../shared/choices.js";
import { make, setText } from "../shared/dom.js";
import { count, NOTHING, rate } from "../shared/format.js";
import { draw, sparkline } from "../shared/sparkline.js";
import { standing } from "../shared/standing.js";

/** @import { Period } from "../shared/definitions.js" */

/**
 * The interface that the row is about: the primary, or the busiest where the agent names none; null where it has none.
 * @param {Api.FleetServer} server
 * @returns {Api.FleetInterface | null}
 */
export function mainInterface(server) {
  const named = server.interfaces.find((one) => one.name === server.primary_interface);
  if (named) return named;
  /** @type {Api.FleetInterface | null} */
  let busiest = null;
  for (const one of server.interfaces) if (!busiest || (one.rx_bps ?? -1) > (busiest.rx_bps ?? -1)) busiest = one;
  return busiest;
}

export class Row {
  /** @param {Api.FleetServer} server */
  constructor(server) {
    this.server = server;
    /** @type {Map<string, Api.Peak>} */
    this.peaks = new Map(); // by interface
    /** @type {Period | null} */
    this.period = null; // of its sparklines
    this.standing = "";
    /** @type {Parts | null} */
    this.parts = null;
  }

  /** What stands in the table, made when it is first wanted: of 500, a few at once, and the others a moment later. */
  get element() {
    if (!this.parts) {
      this.parts = partsOf(this.server);
      this.show();
    }
    return this.parts.row;
  }

  /** All that there is to see of the server's newest heartbeat. */
  show(server = this.server) {
    this.server = server;
    if (!this.parts) return;
    const { id, hostname, display_name: name, tags } = server;
    setText(this.parts.link, name ?? id);
    const other = name ? id : hostname === id || hostname.startsWith(`${id}.`) ? "" : hostname;
    setText(this.parts.hostname, [other, ...tags].filter(Boolean).join(" · "));
    this.parts.hostname.title = this.parts.hostname.textContent ?? "";
    const main = mainInterface(server);
    const units = choice("units");
    this.parts.main.show(main, this);
    const isKnown = this.rateOf(main) !== null;
    setText(this.parts.received, isKnown ? `↓ ${rate(main?.rx_bps, units)}` : NOTHING);
    setText(this.parts.sent, isKnown ? `↑ ${rate(main?.tx_bps, units)}` : "");
    this.showOthers(this.parts, server.interfaces.filter((one) => one !== main));
    this.showPeaks();
  }

  /** @param {number} now as in standing() */
  showStanding(now) {
    const found = standing(this.server, now);
    this.standing = found.name;
    if (!this.parts) return;
    const { row, status } = this.parts;
    setText(status, found.words);
    if (row.dataset.standing !== found.name) {
      row.dataset.standing = found.name;
      status.className = `badge ${found.kind}`;
      this.show();
    }
  }

  /**
   * Both directions of an interface together, in bits per second; null where it is not known.
   * @param {Api.FleetInterface | null | undefined} one
   */
  rateOf(one) {
    // What a server said before it fell silent is not what it does now.
    return this.standing !== "silent" && one?.is_up && one.rx_bps != null ? one.rx_bps + (one.tx_bps ?? 0) : null;
  }

  /**
   * @param {Parts} parts
   * @param {Api.FleetInterface[]} others
   */
  showOthers(parts, others) {
    const gone = new Set(parts.lines.keys());
    for (const one of others) {
      let line = parts.lines.get(one.name);
      if (!line) {
        line = new OtherLine();
        parts.lines.set(one.name, line);
        parts.others.append(line.element);
      }
      gone.delete(one.name);
      line.show(one, this);
    }
    for (const name of gone) {
      parts.lines.get(name)?.element.remove();
      parts.lines.delete(name);
    }
    const { interface_count: all, interfaces_down: down } = this.server;
    setText(parts.rest, all > 1 ? `of ${count(all)}${down ? `, ${count(down)} down` : ""}` : "");
    // Where all are in the row, they need no counting, unless it is too narrow for them.
    parts.rest.classList.toggle("all-shown", all === this.server.interfaces.length);
  }

  showPeaks() {
    if (!this.parts) return;
    const peak = this.peakOf(mainInterface(this.server));
    setText(this.parts.peak, peak === null ? NOTHING : rate(peak, choice("units")));
    const errors = this.errorCount();
    setText(this.parts.errors, this.peaks.size ? count(errors) : NOTHING);
    this.parts.errors.classList.toggle("problem", errors > 0);
  }

  /**
   * The higher of both directions' peaks, or what is measured now where that is more.
   * @param {Api.FleetInterface | null} one
   */
  peakOf(one) {
    if (!one) return null;
    const known = this.peaks.get(one.name);
    const values = [known?.rx_bps_max, known?.tx_bps_max, one.rx_bps, one.tx_bps].filter((value) => value != null);
    return values.length ? Math.max(...values) : null;
  }

  errorCount() {
    let errors = 0;
    for (const one of this.peaks.values()) errors += one.errors;
    return errors;
  }

  /**
   * Sparklines of `period`, by interface; those that are not in it have no data.
   * @param {Map<string, Api.Columns>} columns
   * @param {Period} period
   */
  draw(columns, period) {
    this.period = period;
    if (!this.parts) return;
    // The server's page shows the period that the reader comes from.
    this.parts.link.href = `/servers/${encodeURIComponent(this.server.id)}?period=${period}`;
    const main = mainInterface(this.server);
    this.parts.main.draw(main && columns.get(main.name), main, this);
    for (const [name, line] of this.parts.lines) {
      line.draw(columns.get(name), this.server.interfaces.find((one) => one.name === name) ?? null, this);
    }
  }

  /** The sparklines are not those of the period that is shown. */
  invalidate() {
    this.period = null;
  }
}

/** @typedef {ReturnType<typeof partsOf>} Parts the elements of a row */

/** @param {Api.FleetServer} server */
function partsOf({ id }) {
  const parts = {
    status: make("span", { class: "badge" }),
    link: make("a", { href: `/servers/${encodeURIComponent(id)}` }, id),
    hostname: make("span", { class: "hostname muted" }),
    main: new Line(),
    rest: make("span", { class: "rest muted" }),
    received: make("span", { class: "rx-text" }),
    sent: make("span", { class: "tx-text" }),
    peak: cell({ class: "number peak" }),
    errors: cell({ class: "number errors" }),
    others: make("ul", { class: "others" }),
    /** @type {Map<string, OtherLine>} */
    lines: new Map(), // of the others, by name
  };
  const row = make(
    "tr",
    { role: "row", "data-server": id }, // the roles: laid out as a card, it is still a table's row
    cell({ class: "status" }, parts.status),
    make("th", { class: "server", scope: "row", role: "rowheader" }, parts.link, parts.hostname),
    cell({ class: "interface" }, parts.main.name, " ", parts.rest),
    cell({ class: "traffic" }, parts.main.picture),
    cell({ class: "number now" }, parts.received, parts.sent),
    parts.peak,
    parts.errors,
    cell({ class: "more-interfaces" }, parts.others),
  );
  return { ...parts, row };
}

/** An interface: its name and state, and a picture of its traffic. */
class Line {
  constructor() {
    this.name = make("span", { class: "name" });
    this.down = make("span", { class: "badge bad" }, "Down");
    this.svg = sparkline();
    this.nothing = make("span", { class: "nothing muted" }, "No data");
    this.picture = make("div", { class: "picture" });
    this.shown = ""; // the name, as it stands there
    this.wasUp = false;
    this.label = "";
  }

  /**
   * @param {Api.FleetInterface | null} one
   * @param {Row} row
   */
  show(one, row) {
    if (!one) {
      this.name.replaceChildren(make("span", { class: "muted" }, "No interface"));
      if (row.period) this.draw(null, one, row);
      return;
    }
    if (this.shown !== one.name || this.wasUp !== one.is_up) {
      this.name.replaceChildren(one.name);
      if (one.is_up) this.down.remove();
      else this.placeDown();
      this.shown = one.name;
      this.wasUp = one.is_up;
    }
    this.describe(one, row);
  }

  placeDown() {
    this.name.append(" ", this.down);
  }

  /**
   * @param {Api.Columns | null | undefined} columns
   * @param {Api.FleetInterface | null} one
   * @param {Row} row
   */
  draw(columns, one, row) {
    if (!columns?.rx_bps.some((value) => value !== null)) {
      this.picture.replaceChildren(this.nothing);
      return;
    }
    draw(this.svg, { rx: columns.rx_bps, tx: columns.tx_bps });
    if (this.svg.parentNode !== this.picture) this.picture.replaceChildren(this.svg);
    this.describe(one, row);
  }

  /**
   * What a screen reader says of the picture.
   * @param {Api.FleetInterface | null} one
   * @param {Row} row
   */
  describe(one, row) {
    if (!one) return;
    const units = choice("units");
    const known = row.rateOf(one) !== null;
    const rates = known ? `receiving ${rate(one.rx_bps, units)}, sending ${rate(one.tx_bps, units)}` : "rate unknown";
    const words = one.is_up ? rates : "down";
    const peak = row.peakOf(one);
    const text = `${one.name} of ${row.server.id}: ${words}${peak === null ? "" : `, peak ${rate(peak, units)}`}`;
    if (this.label !== text) this.svg.setAttribute("aria-label", text);
    this.label = text;
  }
}

/** One of a server's other interfaces, small. */
class OtherLine extends Line {
  constructor() {
    super();
    this.rate = make("span", { class: "rate muted" });
    this.words = make("span", { class: "words" }, this.name, this.rate);
    this.element = make("li", {}, this.picture, this.words);
  }

  /** @override */
  placeDown() {
    this.words.append(this.down);
  }

  /**
   * @override
   * @param {Api.FleetInterface} one
   * @param {Row} row
   */
  show(one, row) {
    super.show(one, row);
    const both = row.rateOf(one);
    setText(this.rate, both === null ? "" : rate(both, choice("units")));
  }
}

/**
 * @param {import("../shared/dom.js").Attributes} attributes
 * @param {import("../shared/dom.js").Children} children
 */
function cell(attributes, ...children) {
  return make("td", { role: "cell", ...attributes }, ...children);
}

// One server's row in the fleet: made once, then changed where what it shows has changed.

import { choice } from "./choices.js";
import { make, setText } from "./dom.js";
import { count, duration, NOTHING, rate } from "./format.js";
import { draw, sparkline } from "./sparkline.js";

// A heartbeat takes a moment on its way, and an agent's timer is not ours.
const LATE_AFTER = 1.5;
const SILENT_AFTER = 3;

/** How a server does at `now` (ms, by the service's clock): up, late, silent or paused, with the rank to sort by. */
export function standing(server, now) {
  const seconds = (now - Date.parse(server.received_at)) / 1000;
  if (seconds > SILENT_AFTER * server.interval_seconds) {
    return { name: "silent", kind: "bad", rank: 0, words: `Silent ${coarse(seconds)}` };
  }
  if (seconds > LATE_AFTER * server.interval_seconds) {
    return { name: "late", kind: "warn", rank: 1, words: `Late ${coarse(seconds)}` };
  }
  if (server.paused) return { name: "paused", kind: "warn", rank: 2, words: "Paused" };
  return { name: "up", kind: "ok", rank: 3, words: "Up" };
}

/** The interface that the row is about: the primary, or the busiest where the agent names none. */
export function mainInterface(server) {
  const named = server.interfaces.find((one) => one.name === server.primary_interface);
  const busiest = (best, one) => ((one.rx_bps ?? -1) > (best.rx_bps ?? -1) ? one : best);
  return named ?? server.interfaces.reduce(busiest, server.interfaces[0]);
}

export class Row {
  constructor(server) {
    this.server = server;
    this.columns = new Map(); // by interface, of the last sparklines
    this.peaks = new Map();
    this.period = "";
    this.standing = "";
    this.made = null;
  }

  /** What stands in the table, made when it is first wanted: of 500, a few at once, and the others a moment later. */
  get element() {
    if (!this.made) {
      this.build();
      this.show();
    }
    return this.made;
  }

  build() {
    const { id } = this.server;
    this.status = make("span", { class: "badge" });
    this.link = make("a", { href: pageOf(id) }, id);
    this.hostname = make("span", { class: "hostname muted" });
    this.main = new Line();
    this.rest = make("span", { class: "rest muted" });
    this.others = make("ul", { class: "others" });
    this.received = make("span", { class: "rx-text" });
    this.sent = make("span", { class: "tx-text" });
    this.peak = cell({ class: "number peak" });
    this.errors = cell({ class: "number errors" });
    this.lines = new Map();
    this.made = make(
      "tr",
      { role: "row", "data-server": id }, // the roles: laid out as a card, it is still a table's row
      cell({ class: "status" }, this.status),
      make("th", { class: "server", scope: "row", role: "rowheader" }, this.link, this.hostname),
      cell({ class: "interface" }, this.main.name, " ", this.rest),
      cell({ class: "traffic" }, this.main.picture),
      cell({ class: "number now" }, this.received, this.sent),
      this.peak,
      this.errors,
      cell({ class: "more-interfaces" }, this.others),
    );
  }

  /** All that there is to see of the server's newest heartbeat. */
  show(server = this.server) {
    this.server = server;
    if (!this.made) return;
    this.showHostname();
    const main = mainInterface(server);
    const units = choice("units");
    this.main.show(main, this);
    const known = this.rateOf(main) !== null;
    setText(this.received, known ? `↓ ${rate(main.rx_bps, units)}` : NOTHING);
    setText(this.sent, known ? `↑ ${rate(main.tx_bps, units)}` : "");
    this.showOthers(server.interfaces.filter((one) => one !== main));
    this.showPeaks();
  }

  showStanding(now) {
    const found = standing(this.server, now);
    this.standing = found.name;
    if (!this.made) return;
    setText(this.status, found.words);
    if (this.made.dataset.standing !== found.name) {
      this.made.dataset.standing = found.name;
      this.status.className = `badge ${found.kind}`;
      this.show();
    }
  }

  /** Both directions of an interface together, in bits per second; null where it is not known. */
  rateOf(one) {
    // What a server said before it fell silent is not what it does now.
    return this.standing !== "silent" && one?.is_up && one.rx_bps != null ? one.rx_bps + one.tx_bps : null;
  }

  showHostname() {
    const { id, hostname } = this.server;
    setText(this.hostname, hostname === id || hostname.startsWith(`${id}.`) ? "" : hostname);
  }

  showOthers(others) {
    const gone = new Set(this.lines.keys());
    for (const one of others) {
      let line = this.lines.get(one.name);
      if (!line) {
        line = new OtherLine();
        this.lines.set(one.name, line);
        this.others.append(line.element);
      }
      gone.delete(one.name);
      line.show(one, this);
    }
    for (const name of gone) {
      this.lines.get(name).element.remove();
      this.lines.delete(name);
    }
    const { interface_count: all, interfaces_down: down } = this.server;
    setText(this.rest, all > 1 ? `of ${count(all)}${down ? `, ${count(down)} down` : ""}` : "");
    // Where all are in the row, they need no counting, unless it is too narrow for them.
    this.rest.classList.toggle("all-shown", all === this.server.interfaces.length);
  }

  showPeaks() {
    if (!this.made) return;
    const main = mainInterface(this.server);
    const peak = this.peakOf(main);
    setText(this.peak, peak === null ? NOTHING : rate(peak, choice("units")));
    const errors = this.errorCount();
    setText(this.errors, this.peaks.size ? count(errors) : NOTHING);
    this.errors.classList.toggle("problem", errors > 0);
  }

  /** The higher of both directions' peaks, or what is measured now where that is more. */
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

  /** Sparklines of `period`, by interface; those that are not in it have no data. */
  draw(columns, period) {
    this.columns = columns;
    this.period = period;
    this.link.href = pageOf(this.server.id, period); // the server's page shows what one was looking at
    const main = mainInterface(this.server);
    this.main.draw(main && columns.get(main.name), main, this);
    for (const [name, line] of this.lines) {
      line.draw(columns.get(name), this.server.interfaces.find((one) => one.name === name), this);
    }
  }

  /** The sparklines are not those of the period that is shown. */
  forget() {
    this.period = "";
  }
}

function pageOf(id, period) {
  return `/servers/${encodeURIComponent(id)}${period ? `?period=${period}` : ""}`;
}

/** An interface: its name and state, and a picture of its traffic. */
class Line {
  constructor() {
    this.name = make("span", { class: "name" });
    this.down = make("span", { class: "badge bad" }, "Down");
    this.svg = sparkline();
    this.nothing = make("span", { class: "nothing muted" }, "No data");
    this.picture = make("div", { class: "picture" });
  }

  show(one, row) {
    if (!one) {
      this.name.replaceChildren(make("span", { class: "muted" }, "No interface"));
      if (row.period) this.draw(undefined, one, row);
      return;
    }
    if (this.shown !== one.name || this.wasUp !== one.is_up) {
      this.name.replaceChildren(one.name);
      if (one.is_up) this.down.remove();
      else this.placeDown();
      this.shown = one.name;
      this.wasUp = one.is_up;
    }
    this.label(one, row);
  }

  placeDown() {
    this.name.append(" ", this.down);
  }

  draw(columns, one, row) {
    const hasData = columns?.rx_bps.some((value) => value !== null);
    if (!hasData) {
      this.picture.replaceChildren(this.nothing);
      return;
    }
    draw(this.svg, { rx: columns.rx_bps, tx: columns.tx_bps });
    if (this.svg.parentNode !== this.picture) this.picture.replaceChildren(this.svg);
    this.label(one, row);
  }

  label(one, row) {
    if (!one) return;
    const units = choice("units");
    const known = row.rateOf(one) !== null;
    const rates = known ? `receiving ${rate(one.rx_bps, units)}, sending ${rate(one.tx_bps, units)}` : "no rate known";
    const words = one.is_up ? rates : "down";
    const peak = row.peakOf(one);
    const text = `${one.name} of ${row.server.id}: ${words}${peak === null ? "" : `, peak ${rate(peak, units)}`}`;
    if (this.text !== text) this.svg.setAttribute("aria-label", text);
    this.text = text;
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

  placeDown() {
    this.words.append(this.down);
  }

  show(one, row) {
    super.show(one, row);
    const both = row.rateOf(one);
    setText(this.rate, both === null ? "" : rate(both, choice("units")));
  }
}

/** "4 h": the seconds of a minute ago are news, those of yesterday are not. */
function coarse(seconds) {
  return duration(seconds).split(" ")[0];
}

function cell(attributes, ...children) {
  return make("td", { role: "cell", ...attributes }, ...children);
}
